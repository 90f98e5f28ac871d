/* The processor's table of interrupt handlers. An exception nobody handles is the end. */
#pragma once
#include "types.h"

#define VECTORS 64                      /* 0-31 are the processor's own exceptions */

void interrupts_start(void);            /* load the table; interrupts stay off */
void interrupt_handle(u8 vector, void (*handler)(void));  /* runs with interrupts off; it acknowledges its device */
