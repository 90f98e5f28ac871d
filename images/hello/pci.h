/* Finding devices on the PCI bus. */
#pragma once
#include "types.h"

#define PCI_COMMAND 0x04
#define PCI_COMMAND_IO 1
#define PCI_COMMAND_MASTER 4            /* the device may read and write memory */
#define PCI_BAR0 0x10
#define PCI_INTERRUPT_LINE 0x3c         /* which input of the interrupt controller; set by the BIOS */

u32 pci_read(u32 device, u32 reg);      /* `device` is what pci_find returned */
void pci_write(u32 device, u32 reg, u32 value);
u32 pci_find(u32 id);                   /* id: device << 16 | vendor; 0 if there is none */
