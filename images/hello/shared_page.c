/*
 * The page Xen shares with this domain.
 *
 * Events are taken by looking, never by interrupt: all channels stay masked and the vCPU sleeps in
 * SCHEDOP_poll, which looks at the pending bits only. The guest needs no interrupt handler on Xen.
 */
#include "shared_page.h"

#include "hypercall.h"
#include "io.h"
#include "text.h"
#include "xen_abi.h"

/* Xen's page takes the place of this one, which is thereby given back to Xen. */
static union {
    volatile struct shared_info info;
    u8 page[PAGE_SIZE];
} shared PAGE_ALIGNED;

bool shared_page_map(void)
{
    if (!map_xen_page(XENMAPSPACE_shared_info, 0, &shared))
        return false;
    for (u32 i = 0; i < countof(shared.info.event_mask); i++)
        shared.info.event_mask[i] = ~0u;
    return true;
}

bool event_take(u32 port)
{
    bool was_pending;

    /* Xen sets bits of the same word on other processors: the change must be one locked step. */
    __asm__ volatile("lock; btrl %[bit], %[word]"
                     : "=@ccc"(was_pending), [word] "+m"(shared.info.event_pending[port / 32])
                     : [bit] "r"(port % 32)
                     : "memory");
    return was_pending;
}

/* ticks * multiplier / 2^32 without a 96-bit product. */
static u64 scale(u64 ticks, u32 multiplier)
{
    return (ticks >> 32) * multiplier + ((u64)(u32)ticks * multiplier >> 32);
}

u64 xen_time(void)
{
    volatile struct vcpu_time_info *time = &shared.info.vcpu[0].time;
    u32 version;
    u64 ticks, result;

    do {
        version = time->version;
        barrier();
        ticks = rdtsc() - time->tsc_timestamp;
        ticks = time->tsc_shift < 0 ? ticks >> -time->tsc_shift : ticks << time->tsc_shift;
        result = time->system_time + scale(ticks, time->tsc_to_system_mul);
        barrier();
    } while (version & 1 || version != time->version);
    return result;
}

u64 xen_wall_clock(void)
{
    u32 version;
    u64 ns;

    do {
        version = shared.info.wc_version;
        barrier();
        ns = shared.info.wc_sec * SECOND + shared.info.wc_nsec;
        barrier();
    } while (version & 1 || version != shared.info.wc_version);
    return divide(ns + xen_time(), SECOND);
}
