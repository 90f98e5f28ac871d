/* What the guest was told on its command line. */
#pragma once
#include "address.h"

#define CMDLINE_MOST 2047
#define CONFIG_MOST 32

struct setting { const char *key, *value; };

struct settings {
    const char *name, *service, *host, *greeting;       /* "" if not given */
    struct ip ip, gateway, ip6;                         /* NO_ADDRESS if not given */
    u8 prefix, prefix6;
    struct setting config[CONFIG_MOST];                 /* every other KEY=VALUE, in order */
    u32 config_count;
};

extern struct settings settings;

/* Words apart by blanks: ip=10.0.0.2/24 gw=10.0.0.1 ip6=fd00::2/64 name= service= host= KEY=VALUE,
 * the values percent-encoded. Words without "=" mean nothing to us. A wrong address is fatal. */
void settings_read(const char *cmdline);
