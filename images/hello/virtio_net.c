/* virtio-net by the legacy PCI interface (Virtual I/O Device Specification 1.1: 2.6 the queue,
 * 4.1.4.8 the registers, 5.1 the card), which "legacy" and "transitional" devices offer.
 *
 * The driver hands descriptors of buffers to the device through the available ring; the device
 * hands them back through the used ring. Both only count upwards. Every frame takes a pair of
 * descriptors, as the legacy interface has it: one for virtio's own header, one for the frame. */
#include "virtio_net.h"
#include "console.h"
#include "io.h"
#include "pci.h"
#include "text.h"

#define LEGACY_CARD 0x10001af4u
#define MODERN_CARD 0x10411af4u

#define HOST_FEATURES 0                 /* registers, from BAR 0 on */
#define GUEST_FEATURES 4
#define QUEUE_PAGE 8
#define QUEUE_SIZE 12
#define QUEUE_SELECT 14
#define QUEUE_NOTIFY 16
#define STATUS 18
#define INTERRUPT_STATUS 19             /* reading it ends the interrupt */
#define MAC 20
#define STATUS_ACKNOWLEDGE 1
#define STATUS_DRIVER 2
#define STATUS_RUNNING 4
#define FEATURE_MAC (1u << 5)
#define NO_INTERRUPT 1                  /* flags of the available ring */
#define NO_NOTIFY 1                     /* flags of the used ring */
#define HAS_NEXT 1                      /* flags of a descriptor */
#define DEVICE_WRITES 2

#define PAGE 4096u
#define MOST_ENTRIES 1024               /* QEMU's limit for rx_queue_size and tx_queue_size */
#define FRAMES 32                       /* buffers in use in each direction */
#define FRAME_ROOM 1536
#define HEADER_SIZE 10
#define PATIENCE 100000                 /* looks for room to send, well below a second's worth */

struct descriptor { u64 address; u32 length; u16 flags, next; };
struct available { u16 flags, count, entry[]; };
struct used { u16 flags, count; struct { u32 head, length; } entry[]; };

/* The layout in memory depends on the number of entries, which the device dictates. */
#define QUEUE_BYTES (3 * PAGE + 16 * MOST_ENTRIES + 2 * MOST_ENTRIES + 8 * MOST_ENTRIES)

struct queue {
    u8 memory[QUEUE_BYTES] __attribute__((aligned(4096)));
    u32 entries;
    struct descriptor *descriptor;
    volatile struct available *available;
    volatile struct used *used;
    u16 seen;                           /* entries of the used ring we have taken back */
    u8 header[HEADER_SIZE];             /* shared: all zeros when sending, ignored when receiving */
    u8 frame[FRAMES][FRAME_ROOM];
};

enum { RECEIVE, SEND };                 /* the numbers of the queues */

static struct queue queues[2];
static u16 registers;

static bool open_queue(u16 number)
{
    struct queue *q = &queues[number];
    outw(registers + QUEUE_SELECT, number);
    q->entries = inw(registers + QUEUE_SIZE);
    if (q->entries < 2 * FRAMES || q->entries > MOST_ENTRIES)
        return false;
    u32 ring_end = 16 * q->entries + 2 * (3 + q->entries);
    q->descriptor = (void *)q->memory;
    q->available = (void *)(q->memory + 16 * q->entries);
    q->used = (void *)(q->memory + (ring_end + PAGE - 1) / PAGE * PAGE);
    for (u32 i = 0; i < FRAMES; i++) {
        u16 direction = number == RECEIVE ? DEVICE_WRITES : 0;
        q->descriptor[2 * i] = (struct descriptor){ (u32)q->header, HEADER_SIZE, HAS_NEXT | direction, 2 * i + 1 };
        q->descriptor[2 * i + 1] = (struct descriptor){ (u32)q->frame[i], FRAME_ROOM, direction, 0 };
    }
    q->available->flags = NO_INTERRUPT;
    outl(registers + QUEUE_PAGE, (u32)q->memory / PAGE);
    return true;
}

/* Give the buffer of frame number `i` to the device. */
static void give(u16 number, u32 i)
{
    struct queue *q = &queues[number];
    q->available->entry[q->available->count % q->entries] = 2 * i;
    barrier();                          /* the entry is there before it is counted */
    q->available->count++;
    barrier();                          /* and counted before the device says it need not be told */
    if (!(q->used->flags & NO_NOTIFY))
        outw(registers + QUEUE_NOTIFY, number);
}

bool virtio_net_open(u8 mac[6], u8 *irq)
{
    u32 card = pci_find(LEGACY_CARD), bar = card ? pci_read(card, PCI_BAR0) : 0;
    if (!(bar & 1)) {                   /* bit 0: the registers are I/O ports */
        if (card || pci_find(MODERN_CARD))
            say("the network card has no legacy registers; take machine pc, or model virtio-transitional");
        return false;
    }
    registers = bar & 0xfffc;
    pci_write(card, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
    *irq = pci_read(card, PCI_INTERRUPT_LINE);

    outb(registers + STATUS, 0);        /* reset */
    outb(registers + STATUS, STATUS_ACKNOWLEDGE);
    outb(registers + STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    if (!(inl(registers + HOST_FEATURES) & FEATURE_MAC)) {
        say("the network card has no MAC address of its own");
        return false;
    }
    outl(registers + GUEST_FEATURES, FEATURE_MAC);
    if (!open_queue(RECEIVE) || !open_queue(SEND)) {
        say("the network card's queues must have %u to %u entries", 2 * FRAMES, MOST_ENTRIES);
        return false;
    }
    for (u32 i = 0; i < 6; i++)
        mac[i] = inb(registers + MAC + i);
    outb(registers + STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_RUNNING);
    for (u32 i = 0; i < FRAMES; i++)
        give(RECEIVE, i);
    return true;
}

bool virtio_net_send(const void *frame, u32 length)
{
    struct queue *q = &queues[SEND];
    u16 sent = q->available->count;
    for (u32 n = 0; (u16)(sent - q->used->count) >= FRAMES; n++) {
        if (n == PATIENCE)
            return false;
        __asm__ volatile("pause");      /* QEMU takes them in a thread of its own */
    }
    u32 i = sent % FRAMES;              /* QEMU takes and returns them in order */
    length = min(length, FRAME_ROOM);
    memcpy(q->frame[i], frame, length);
    q->descriptor[2 * i + 1].length = length;
    give(SEND, i);
    return true;
}

u32 virtio_net_receive(void *frame, u32 room)
{
    struct queue *q = &queues[RECEIVE];
    if (q->seen == q->used->count)
        return 0;
    barrier();                          /* the entry is read after it was counted */
    u32 i = q->used->entry[q->seen % q->entries].head / 2 % FRAMES;
    u32 length = q->used->entry[q->seen % q->entries].length;
    q->seen++;
    length = length > HEADER_SIZE ? min(length - HEADER_SIZE, min(room, FRAME_ROOM)) : 0;
    memcpy(frame, q->frame[i], length);
    give(RECEIVE, i);
    return length;
}

bool virtio_net_may_sleep(void)
{
    struct queue *q = &queues[RECEIVE];
    q->available->flags = 0;
    barrier();                          /* a frame that came before this asks for no interrupt */
    if (q->seen == q->used->count)
        return true;
    q->available->flags = NO_INTERRUPT;
    return false;
}

void virtio_net_interrupt(void)
{
    if (registers) {
        inb(registers + INTERRUPT_STATUS);
        queues[RECEIVE].available->flags = NO_INTERRUPT;
    }
}
