/* A stand-in for Solo5's spt tender, for tests on machines that do not have it.
 *
 * It takes the real one's arguments and is as strict about them (tenders/spt/spt_main.c and its
 * modules), opens the same files in the same way, says the same words before the same exit status,
 * and puts a seccomp filter in place when it begins to "run". Its unikernels are text files:
 *
 *     stand-in unikernel
 *     net service0
 *     block storage
 *
 * They print, take their address from --ipv4=, announce it ten times (gratuitous ARP), answer ARP
 * and ICMP echo, write their first letter to the start of each disk, and end with status N when
 * they receive a UDP datagram that says "exit N". The word "mute" on the command line keeps them
 * from putting the filter in place, "chatty" makes them fill the console, "done" ends them at once.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <err.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MAX_DEVICES 8

struct device {
    char kind[8], name[68], where[4096];
    uint8_t mac[6];
    int fd;
};

static struct device devices[MAX_DEVICES];
static int device_count;
static uint8_t address[4];

static void read_manifest(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        err(1, "%s: Could not open", path);
    char line[100] = "";
    if (!fgets(line, sizeof line, file) || strcmp(line, "stand-in unikernel\n"))
        errx(1, "%s: invalid executable: not one of the stand-in's", path);
    while (fgets(line, sizeof line, file)) {
        struct device *d = &devices[device_count];
        if (device_count == MAX_DEVICES || sscanf(line, "%7s %67s", d->kind, d->name) != 2)
            errx(1, "%s: Solo5 manifest is invalid", path);
        d->fd = -1;
        device_count++;
    }
    fclose(file);
}

static int open_tap(const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    if (strlen(name) >= IFNAMSIZ || !if_nametoindex(name))
        return -1;
    int fd = open("/dev/net/tun", O_RDWR);
    strcpy(request.ifr_name, name);
    return fd >= 0 && ioctl(fd, TUNSETIFF, &request) == 0 ? fd : -1;
}

static void attach(struct device *d)
{
    d->fd = strcmp(d->kind, "net") ? open(d->where, O_RDWR) : open_tap(d->where);
    if (d->fd == -1)
        err(1, "Could not attach %s: %s", d->name, d->where);
}

/* Return whether it is an option with a device of that kind, as "--kind:NAME=value". */
static struct device *named(const char *option, const char *kind, const char *of, char *value)
{
    char name[68], begin[20];
    int length = snprintf(begin, sizeof begin, "--%s:", option);
    if (strncmp(of, begin, length) ||
        sscanf(of + length, "%67[A-Za-z0-9]=%4095s", name, value) != 2)
        return NULL;
    for (int i = 0; i < device_count; i++)
        if (!strcmp(devices[i].kind, kind) && !strcmp(devices[i].name, name))
            return &devices[i];
    warnx("Resource not declared in manifest: '%s'", name);
    return NULL;
}

static bool take_option(const char *option)
{
    char value[4096];
    struct device *d;
    unsigned long mem;
    if (sscanf(option, "--mem=%lu", &mem) == 1) {
        if (mem == 0 || mem > 1ul << 26)
            abort(); /* the real one fails an assertion */
        return true;
    }
    if ((d = named("net-mac", "net", option, value))) {
        uint8_t *m = d->mac;
        return sscanf(value, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", m, m + 1, m + 2, m + 3, m + 4,
                      m + 5) == 6;
    }
    if ((d = named("net", "net", option, value)) || (d = named("block", "block", option, value))) {
        strcpy(d->where, value);
        attach(d);
        return true;
    }
    return false;
}

static uint16_t checksum(const uint8_t *at, int count)
{
    uint32_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += i % 2 ? at[i] : at[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons(~sum);
}

static void announce(const struct device *d)
{
    uint8_t frame[42] = {[12] = 8, 6, 0, 1, 8, 0, 6, 4, 0, 1};
    memset(frame, 0xff, 6);
    memcpy(frame + 6, d->mac, 6);
    memcpy(frame + 22, d->mac, 6);
    memcpy(frame + 28, address, 4);
    memcpy(frame + 38, address, 4);
    for (int i = 0; i < 10; i++)
        if (write(d->fd, frame, sizeof frame) < 0)
            err(1, "%s", d->where);
}

/* Answer a frame in its own bytes: ARP (RFC 826), ICMP echo (RFC 792), or our own UDP command. */
static bool answer(const struct device *d, uint8_t *f, int length)
{
    if (length >= 42 && f[12] == 8 && f[13] == 6 && f[21] == 1 && !memcmp(f + 38, address, 4)) {
        f[21] = 2;
        memcpy(f + 32, f + 22, 10);
        memcpy(f + 22, d->mac, 6);
        memcpy(f + 28, address, 4);
    } else if (length >= 42 && f[12] == 8 && f[13] == 0 && !memcmp(f + 30, address, 4)) {
        if (f[23] == 17 && !strncmp((char *)f + 42, "exit ", 5))
            exit(atoi((char *)f + 47));
        if (f[23] != 1 || f[34] != 8)
            return false;
        memcpy(f + 30, f + 26, 4);
        memcpy(f + 26, address, 4);
        f[34] = f[36] = f[37] = 0;
        uint16_t sum = checksum(f + 34, length - 34);
        memcpy(f + 36, &sum, 2);
    } else {
        return false;
    }
    memcpy(f, f + 6, 6);
    memcpy(f + 6, d->mac, 6);
    return true;
}

static void put_filter_in_place(void)
{
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = 1, .filter = &allow};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        err(1, "seccomp");
}

static void run(const char *cmdline)
{
    const char *ipv4 = strstr(cmdline, "--ipv4=");
    if (ipv4)
        sscanf(ipv4, "--ipv4=%hhu.%hhu.%hhu.%hhu", address, address + 1, address + 2, address + 3);
    if (strstr(cmdline, "mute"))
        pause();
    put_filter_in_place();
    printf("stand-in for solo5-spt\ncommand line: %s\n", cmdline);
    fflush(stdout);
    if (strstr(cmdline, "done"))
        exit(0);
    while (strstr(cmdline, "chatty"))
        if (printf("%01023d\n", 0) && usleep(500) == 0)
            fflush(stdout);
    struct device *card = NULL;
    for (int i = 0; i < device_count; i++)
        if (!strcmp(devices[i].kind, "net"))
            card = card ? card : &devices[i];
        else if (pwrite(devices[i].fd, devices[i].name, 1, 0) != 1)
            err(1, "%s", devices[i].where);
    announce(card);
    for (;;) {
        uint8_t frame[2048] = "";
        ssize_t length = read(card->fd, frame, sizeof frame - 1);
        if (length < 0)
            err(1, "%s", card->where);
        if (answer(card, frame, length) && write(card->fd, frame, length) < 0)
            err(1, "%s", card->where);
    }
}

int main(int argc, char **argv)
{
    int kernel = 1;
    while (kernel < argc && argv[kernel][0] == '-' && strcmp(argv[kernel], "--"))
        kernel++;
    kernel += kernel < argc && !strcmp(argv[kernel], "--");
    if (kernel >= argc)
        errx(1, "Missing KERNEL operand");
    read_manifest(argv[kernel]);
    for (int i = 1; i < kernel && strcmp(argv[i], "--"); i++)
        if (!take_option(argv[i]))
            errx(1, "Invalid option: `%s'", argv[i]);
    for (int i = 0; i < device_count; i++)
        if (devices[i].fd == -1)
            errx(1, "Device '%s' of type %s declared but not attached.", devices[i].name,
                 devices[i].kind);
    char cmdline[8192] = "";
    for (int i = kernel + 1; i < argc; i++) {
        if (strlen(cmdline) + strlen(argv[i]) + 2 > sizeof cmdline)
            errx(1, "Guest command line too long (max=%zu characters)", sizeof cmdline - 1);
        strcat(strcat(cmdline, argv[i]), i + 1 < argc ? " " : "");
    }
    run(cmdline);
}
