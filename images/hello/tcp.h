/* A TCP server on one port (RFC 9293), with room for a fixed number of connections. */
#pragma once
#include "net.h"

#define TCP_PORT 80
#define CONNECTIONS 128
#define REQUEST_ROOM 2048               /* bytes of requests kept for each connection: our window */
#define RESPONSE_ROOM 6144              /* bytes of responses kept until they are acknowledged */

void tcp_receive(const struct packet *packet);
u64 tcp_timers(void);                   /* do what is due; returns when next to be called */
void tcp_reset_all(void);               /* we are about to end */
u32 tcp_connections(void);              /* in the table, those that only wait for stragglers too */
