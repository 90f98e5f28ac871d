/* The DHCP client, for guests that were not told an IPv4 address. */
#pragma once
#include "net.h"

void dhcp_start(void);
bool dhcp_wants(const struct packet *packet);   /* it is for our port, and we ask for an address */
void dhcp_receive(const struct packet *packet);
u64 dhcp_timers(void);                  /* do what is due; returns when next to be called */
