/* The virtio network card of QEMU and KVM. */
#pragma once
#include "types.h"

bool virtio_net_open(u8 mac[6], u8 *irq);       /* find it and start it; irq: its interrupt line */
bool virtio_net_send(const void *frame, u32 length);
u32 virtio_net_receive(void *frame, u32 room);
bool virtio_net_may_sleep(void);        /* ask for an interrupt; false: a frame is here already */
void virtio_net_interrupt(void);        /* called on every hardware interrupt */
