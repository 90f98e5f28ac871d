/* The power button and power-off, as ACPI's fixed hardware has them. */
#pragma once
#include "types.h"

#define ACPI_IRQ 9                      /* the SCI of both chip sets QEMU emulates */

void acpi_start(void);                  /* find the registers and arm the power button */
void acpi_interrupt(void);              /* called on every hardware interrupt */
bool acpi_button_pressed(void);
void acpi_power_off(void);              /* returns if there is no ACPI */
