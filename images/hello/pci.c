/* PCI configuration mechanism 1 (PCI Local Bus Specification 3.0, 3.2.2.3.2).
 *
 * A device is named by what goes into the address port: bus, slot and function at their places,
 * with the enable bit set. Bridges are followed, so that a card behind one is found, too. */
#include "pci.h"
#include "io.h"

#define ADDRESS_PORT 0xcf8
#define DATA_PORT 0xcfc
#define ENABLE 0x80000000u
#define HEADER_TYPE 0x0c                /* in bits 16-23 */
#define SEVERAL_FUNCTIONS 0x800000u
#define IS_BRIDGE(header) (((header) >> 16 & 0x7f) == 1)
#define BRIDGE_BUSES 0x18               /* bits 8-15: the bus behind the bridge */
#define NOBODY 0xffffffffu

u32 pci_read(u32 device, u32 reg)
{
    outl(ADDRESS_PORT, device | reg);
    return inl(DATA_PORT);
}

void pci_write(u32 device, u32 reg, u32 value)
{
    outl(ADDRESS_PORT, device | reg);
    outl(DATA_PORT, value);
}

/* Search one bus and those behind its bridges. Bus numbers grow with depth, so this ends. */
static u32 find_on(u32 bus, u32 id)
{
    for (u32 slot = 0; slot < 32; slot++) {
        u32 functions = 1;
        for (u32 function = 0; function < functions; function++) {
            u32 device = ENABLE | bus << 16 | slot << 11 | function << 8;
            u32 found = pci_read(device, 0);
            if (found == NOBODY)
                continue;
            if (found == id)
                return device;
            u32 header = pci_read(device, HEADER_TYPE);
            if (header & SEVERAL_FUNCTIONS)
                functions = 8;
            u32 behind = IS_BRIDGE(header) ? pci_read(device, BRIDGE_BUSES) >> 8 & 0xff : 0;
            u32 deeper = behind > bus ? find_on(behind, id) : 0;
            if (deeper)
                return deeper;
        }
    }
    return 0;
}

u32 pci_find(u32 id)
{
    return find_on(0, id);
}
