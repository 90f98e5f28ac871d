/* The PC that QEMU and KVM emulate, with or without a multiboot loader: machine pc or q35. */
#include "platform.h"
#include "acpi.h"
#include "clock.h"
#include "interrupts.h"
#include "io.h"
#include "virtio_net.h"

#define SERIAL 0x3f8                    /* the first UART (16550) */
#define SERIAL_MAY_SEND 0x20            /* in the line status register */
#define SERIAL_PATIENCE 100000          /* reads of it: nobody may ever take what we say */

#define PIC_FIRST 0x20                  /* the two interrupt controllers (8259A) */
#define PIC_SECOND 0xa0
#define PIC_END 0x20                    /* "end of interrupt" */
#define PIC_CASCADE 2                   /* the input of the first where the second is connected */
#define IRQ_VECTOR 0x20                 /* of IRQ 0; not where exceptions are */
#define KEYBOARD_PORT 0x64
#define KEYBOARD_RESET 0xfe

static void start_serial(void)
{
    static const u8 settings[][2] = {
        { 1, 0 },                       /* no interrupts */
        { 3, 0x80 }, { 0, 1 }, { 1, 0 },/* divisor 1: 115200 baud */
        { 3, 0x03 },                    /* 8 bits, no parity, 1 stop bit */
        { 2, 0x07 },                    /* use the FIFOs, empty them */
    };
    for (u32 i = 0; i < sizeof settings / 2; i++)
        outb(SERIAL + settings[i][0], settings[i][1]);
}

static void print(const char *text, u32 length)
{
    for (; length--; text++) {
        for (u32 n = 0; !(inb(SERIAL + 5) & SERIAL_MAY_SEND) && n < SERIAL_PATIENCE; n++)
            ;
        outb(SERIAL, *text);
    }
}

/* Interrupt lines may be shared, so every device is asked; to ask one in vain does no harm. */
static void on_interrupt(void)
{
    virtio_net_interrupt();
    acpi_interrupt();
    outb(PIC_SECOND, PIC_END);
    outb(PIC_FIRST, PIC_END);
}

static void start_pics(void)
{
    static const u8 words[2][4] = {     /* the initialisation words of an 8259A, in their order */
        { 0x11, IRQ_VECTOR, 1 << PIC_CASCADE, 1 },
        { 0x11, IRQ_VECTOR + 8, PIC_CASCADE, 1 },
    };
    for (u32 i = 0; i < 2; i++) {
        u16 port = i ? PIC_SECOND : PIC_FIRST;
        outb(port, words[i][0]);
        for (u32 n = 1; n < 4; n++)
            outb(port + 1, words[i][n]);
        outb(port + 1, 0xff);           /* all lines masked */
    }
    for (u32 irq = 0; irq < 16; irq++)
        interrupt_handle(IRQ_VECTOR + irq, on_interrupt);
}

static void unmask(u8 irq)
{
    u16 port = (irq < 8 ? PIC_FIRST : PIC_SECOND) + 1;
    outb(port, inb(port) & ~(1 << irq % 8));
    if (irq >= 8)
        unmask(PIC_CASCADE);
}

static void start(const void *boot_info)
{
    (void)boot_info;
    start_serial();
    interrupts_start();
    start_pics();
    clock_start();
    acpi_start();
    unmask(ACPI_IRQ);
}

static bool open_nic(u8 mac[6])
{
    u8 irq;
    if (!virtio_net_open(mac, &irq))
        return false;
    unmask(irq & 15);
    return true;
}

static void wait(u64 until_ns)
{
    if (clock_set_alarm(until_ns) && !acpi_button_pressed() && virtio_net_may_sleep()) {
        sleep_until_interrupt();
    } else {                            /* let in what waits, such as the power button */
        interrupts_on();
        __asm__ volatile("nop");
        interrupts_off();
    }
}

static void ready(const char *address)
{
    (void)address;                      /* a PC has nobody to tell */
}

static __attribute__((noreturn)) void power_off(void)
{
    interrupts_off();
    acpi_power_off();
    outb(KEYBOARD_PORT, KEYBOARD_RESET);        /* without ACPI: a reset, which ends guests of ours */
    for (;;)
        __asm__ volatile("hlt");
}

const struct platform pc_platform = {
    .name = "QEMU",
    .start = start,
    .print = print,
    .now_ns = clock_now_ns,
    .wall_s = clock_wall_s,
    .open_nic = open_nic,
    .send = virtio_net_send,
    .receive = virtio_net_receive,
    .wait = wait,
    .ready = ready,
    .asked_to_stop = acpi_button_pressed,
    .power_off = power_off,
};
