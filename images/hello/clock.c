/* Time since start is the processor's time stamp counter (TSC), its speed measured against the PIT,
 * the one clock whose frequency every PC has in common. The alarm is the local APIC's timer in its
 * one-shot mode: nothing ticks while nobody waits. The time of day is read from the CMOS clock each
 * time, so that it is right again after the guest was paused or saved. */
#include "clock.h"
#include "calendar.h"
#include "console.h"
#include "interrupts.h"
#include "io.h"

#define PIT_HZ 1193182
#define PIT_COUNTER_2 0x42
#define PIT_COMMAND 0x43
#define PIT_START_2 0xb0                /* counter 2, both bytes, mode 0: count down once */
#define PIT_LATCH_2 0x80                /* hold the count of counter 2 for reading */
#define SPEAKER_PORT 0x61               /* bit 0: counter 2 runs; bit 1: speaker; bit 5: it is done */
#define MEASURE_TICKS (PIT_HZ / 200)    /* 5 ms */

#define CPUID_APIC (1u << 9)            /* leaf 1, register d */
#define MSR_APIC_BASE 0x1b
#define APIC_VECTOR 0x30
#define SPURIOUS_VECTOR 0x3f
#define APIC(offset) (*(volatile u32 *)(apic + (offset)))
#define APIC_EOI APIC(0x0b0)
#define APIC_SPURIOUS APIC(0x0f0)
#define APIC_ENABLE 0x100
#define APIC_TIMER APIC(0x320)
#define APIC_LINT0 APIC(0x350)
#define APIC_EXTINT 0x700               /* pass on what the interrupt controller (PIC) says */
#define APIC_COUNT APIC(0x380)
#define APIC_LEFT APIC(0x390)
#define APIC_DIVIDE APIC(0x3e0)
#define APIC_BY_16 3
#define LONGEST_US 60000000u            /* an alarm further away wakes us in between */

static u32 apic, apic_khz;
static u32 ns_per_tick;                 /* of the TSC, times 2^24 */
static u64 tsc_at_start;

static u64 ticks_to_ns(u64 ticks)
{
    u32 high = ticks >> 32, low = ticks;
    return ((u64)high * ns_per_tick << 8) + ((u64)low * ns_per_tick >> 24);
}

struct moment { u64 tsc; u32 apic_left, pit_left; };

/* Read all three counters at once: of several tries the one during which the least time passed, for
 * the host may have let another process run in the middle of any of them. */
static struct moment read_counters(void)
{
    struct moment best = { 0 };
    u64 shortest = FOREVER;
    for (u32 i = 0; i < 5; i++) {
        u64 before = rdtsc();
        outb(PIT_COMMAND, PIT_LATCH_2);
        u32 apic_left = APIC_LEFT;
        u64 took = rdtsc() - before;
        u32 pit_left = inb(PIT_COUNTER_2);
        pit_left |= inb(PIT_COUNTER_2) << 8;
        if (took < shortest) {
            shortest = took;
            best = (struct moment){ before, apic_left, pit_left };
        }
    }
    return best;
}

/* Let the PIT count 5 ms or a little more; false if we came too late to see how many. */
static bool measure(void)
{
    outb(SPEAKER_PORT, (inb(SPEAKER_PORT) & ~2) | 1);
    outb(PIT_COMMAND, PIT_START_2);
    outb(PIT_COUNTER_2, 0xff);
    outb(PIT_COUNTER_2, 0xff);
    APIC_COUNT = 0xffffffff;

    struct moment from = read_counters(), to;
    do
        to = read_counters();
    while (from.pit_left - to.pit_left < MEASURE_TICKS && !(inb(SPEAKER_PORT) & 0x20));
    if (inb(SPEAKER_PORT) & 0x20)
        return false;                   /* 55 ms are over, the count has started again */
    u32 pit_ticks = from.pit_left - to.pit_left;
    u32 tsc_khz = divide(divide((to.tsc - from.tsc) * PIT_HZ, pit_ticks), 1000);
    apic_khz = divide(divide((u64)(from.apic_left - to.apic_left) * PIT_HZ, pit_ticks), 1000);
    if (!tsc_khz || !apic_khz)
        return false;
    ns_per_tick = divide(1000000ull << 24, tsc_khz);
    return true;
}

static void alarm(void)
{
    APIC_EOI = 0;
}

void clock_start(void)
{
    tsc_at_start = rdtsc();
    if (!(cpuid(1).d & CPUID_APIC))
        fatal("the processor has no local APIC, whose timer hello needs; do not take it away");
    apic = rdmsr(MSR_APIC_BASE) & 0xfffff000;
    interrupt_handle(APIC_VECTOR, alarm);
    APIC_SPURIOUS = APIC_ENABLE | SPURIOUS_VECTOR;
    APIC_LINT0 = APIC_EXTINT;
    APIC_DIVIDE = APIC_BY_16;
    for (u32 tries = 0; !measure(); tries++)
        if (tries == 100)
            fatal("the clocks cannot be compared: the timer (PIT) does not run as it should");
    APIC_COUNT = 0;
    APIC_TIMER = APIC_VECTOR;
}

u64 clock_now_ns(void)
{
    return ticks_to_ns(rdtsc() - tsc_at_start);
}

bool clock_set_alarm(u64 at_ns)
{
    u64 now = clock_now_ns();
    if (at_ns <= now)
        return false;
    u64 us = divide(earlier(at_ns - now, FOREVER / 2), 1000) + 1;
    APIC_COUNT = at_ns == FOREVER ? 0 : divide(earlier(us, LONGEST_US) * apic_khz, 1000) + 1;
    return true;
}

static u8 cmos(u8 reg)
{
    outb(0x70, reg);
    return inb(0x71);
}

/* Registers 0 to 9 and the century; read again until two readings agree. */
static void read_cmos(u8 now[11])
{
    u8 before[11];
    do {
        memcpy(before, now, sizeof before);
        while (cmos(0x0a) & 0x80)       /* it is being updated; takes at most 2 ms */
            ;
        for (u32 i = 0; i < 10; i++)
            now[i] = cmos(i);
        now[10] = cmos(0x32);
    } while (!same(before, now, sizeof before));
}

u64 clock_wall_s(void)
{
    u8 r[11] = { 0 };
    read_cmos(r);
    if (!(cmos(0x0b) & 4))              /* two decimal digits in each byte */
        for (u32 i = 0; i < sizeof r; i++)
            r[i] = (r[i] >> 4) * 10 + (r[i] & 15);
    return seconds_since_1970(r[10] * 100 + r[9], r[8], r[7], r[4], r[2], r[0]);
}
