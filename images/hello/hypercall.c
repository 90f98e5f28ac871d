/*
 * Calls into Xen.
 *
 * Xen writes one stub of 32 bytes for each hypercall into a page the guest offers, so that the
 * guest need not know the processor's own instruction for it. Number and arguments go in the
 * registers of Xen's 32-bit convention (arch-x86/xen-x86_32.h); the result comes back in eax.
 */
#include "hypercall.h"

#include "io.h"
#include "text.h"
#include "xen_abi.h"

static u8 hypercall_page[PAGE_SIZE] PAGE_ALIGNED;

/* All calls we make have the form: command, address of its argument. */
static i32 hypercall(u32 number, u32 command, void *argument)
{
    i32 result;

    /* Xen may spoil the argument registers, hence in-out operands that nobody reads. */
    __asm__ volatile("call *%[stub]"
                     : "=a"(result), "+b"(command), "+c"(argument)
                     : [stub] "a"(hypercall_page + 32 * number)
                     : "memory");
    return result;
}

/* Xen's first CPUID leaf: it moves up when Xen also shows another hypervisor's interface. */
static u32 cpuid_base(void)
{
    for (u32 base = CPUID_XEN_FIRST; base < CPUID_XEN_LAST; base += CPUID_XEN_STEP) {
        struct cpuid signature = cpuid(base);

        if (same(&signature.b, "XenVMMXenVMM", 12))
            return base;
    }
    return 0;
}

bool hypercall_start(void)
{
    u32 base = cpuid_base();

    if (!base)
        return false;
    wrmsr(cpuid(base + 2).b, (u32)hypercall_page);
    return true;
}

u32 hvm_param(u32 index)
{
    struct hvm_param param = {.domid = DOMID_SELF, .index = index};

    return hypercall(HVM_OP, HVMOP_get_param, &param) ? 0 : (u32)param.value;
}

bool map_xen_page(u32 space, u32 index, void *address)
{
    struct add_to_physmap map = {
        .domid = DOMID_SELF,
        .space = space,
        .index = index,
        .gpfn = (u32)address / PAGE_SIZE,
    };

    return hypercall(MEMORY_OP, XENMEM_add_to_physmap, &map) == 0;
}

u32 event_channel_open(u16 remote)
{
    struct evtchn_alloc_unbound channel = {.domain = DOMID_SELF, .remote_domain = remote};

    return hypercall(EVENT_CHANNEL_OP, EVTCHNOP_alloc_unbound, &channel) ? 0 : channel.port;
}

void event_channel_close(u32 port)
{
    hypercall(EVENT_CHANNEL_OP, EVTCHNOP_close, &port);
}

void event_channel_notify(u32 port)
{
    hypercall(EVENT_CHANNEL_OP, EVTCHNOP_send, &port);
}

void sleep_until_event(const u32 *ports, u32 count, u64 system_time)
{
    struct sched_poll poll = {.ports = ports, .port_count = count, .timeout = system_time};

    hypercall(SCHED_OP, SCHEDOP_poll, &poll);
}

i32 shutdown(u32 reason)
{
    return hypercall(SCHED_OP, SCHEDOP_shutdown, &reason);
}
