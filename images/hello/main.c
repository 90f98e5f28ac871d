/* The whole life of the guest: find out where we are, read the settings, serve until asked to stop. */
#include "console.h"
#include "dhcp.h"
#include "hash.h"
#include "http.h"
#include "io.h"
#include "net.h"
#include "settings.h"
#include "tcp.h"

#define MULTIBOOT_MAGIC 0x2badb002      /* in %eax: Multiboot Specification, 3.2 */
#define PVH_MAGIC 0x336ec578            /* first word of struct hvm_start_info */
#define HYPERVISOR_LEAF 0x40000000      /* CPUID: where hypervisors say who they are */
#define HYPERVISOR_LAST 0x40010000
#define FRAMES_AT_ONCE 64               /* then timers get their turn */

struct multiboot_info { u32 flags, mem_lower, mem_upper, boot_device, cmdline; };
#define MULTIBOOT_HAS_CMDLINE 4

struct hvm_start_info { u32 magic, version, flags, modules; u64 module_list, cmdline; };

const struct platform *machine;

static bool on_xen(void)
{
    for (u32 leaf = HYPERVISOR_LEAF; leaf < HYPERVISOR_LAST; leaf += 0x100) {
        struct cpuid id = cpuid(leaf);
        if (same(&id.b, "XenVMMXenVMM", 12))
            return true;
    }
    return false;
}

/* The loader's command line. Multiboot puts the path of the kernel before it; PVH does not. */
static const char *command_line(u32 magic, const void *boot_info)
{
    const struct multiboot_info *multiboot = boot_info;
    const struct hvm_start_info *pvh = boot_info;
    const char *line = "";

    if (magic == PVH_MAGIC)
        return pvh->cmdline ? (const char *)(u32)pvh->cmdline : "";
    if (magic == MULTIBOOT_MAGIC && multiboot->flags & MULTIBOOT_HAS_CMDLINE)
        line = (const char *)multiboot->cmdline;
    while (*line && *line != ' ')
        line++;
    return line;
}

static void serve(void)
{
    static u8 frame[FRAME_MOST];
    u32 length;

    while (!machine->asked_to_stop()) {
        for (u32 i = 0; i < FRAMES_AT_ONCE && (length = machine->receive(frame, sizeof frame)); i++)
            net_receive(frame, length);
        machine->wait(earlier(net_timers(), earlier(tcp_timers(), dhcp_timers())));
    }
}

void hello(u32 magic, const void *boot_info)
{
    machine = magic == PVH_MAGIC && on_xen() ? &xen_platform : &pc_platform;
    machine->start(boot_info);
    http_start();
    settings_read(command_line(magic, boot_info));
    if (!machine->open_nic(own.mac))
        fatal("no network card that hello can use");
    hash_seed(own.mac, sizeof own.mac);
    net_start();
    if (is_set(&settings.ip))
        net_set_ipv4(settings.ip);
    else
        dhcp_start();
    serve();
    say("asked to stop");
    tcp_reset_all();
    machine->power_off();
}
