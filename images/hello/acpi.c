/* ACPI fixed hardware (ACPI Specification 6.5, 4.8.3), found through the chip set's PCI device
 * instead of tables: QEMU has two chip sets, whose registers differ only in where their base is. */
#include "acpi.h"
#include "io.h"
#include "pci.h"

#define PIIX4_PM 0x71138086u            /* machine pc */
#define ICH9_LPC 0x29188086u            /* machine q35 */
#define PM_BASE 0x40                    /* in the configuration space of both */
#define PM_BASE_MASK 0xffc0u
#define PM1_STATUS 0                    /* offsets from that base */
#define PM1_ENABLE 2
#define PM1_CONTROL 4
#define POWER_BUTTON 0x100u             /* in status and enable; written to status, it clears */
#define SLEEP_ENABLE 0x2000u            /* with sleep type 0, which is S5 (off) in QEMU's tables */

static u16 base;
static bool pressed;

void acpi_start(void)
{
    u32 device = pci_find(PIIX4_PM);
    if (!device)
        device = pci_find(ICH9_LPC);
    if (!device)
        return;                         /* -machine acpi=off */
    base = pci_read(device, PM_BASE) & PM_BASE_MASK;
    if (!base)
        return;
    outw(base + PM1_STATUS, POWER_BUTTON);
    outw(base + PM1_ENABLE, POWER_BUTTON);
}

void acpi_interrupt(void)
{
    if (base && inw(base + PM1_STATUS) & POWER_BUTTON) {
        outw(base + PM1_STATUS, POWER_BUTTON);
        pressed = true;
    }
}

bool acpi_button_pressed(void)
{
    return pressed;
}

void acpi_power_off(void)
{
    if (base)
        outw(base + PM1_CONTROL, SLEEP_ENABLE);
}
