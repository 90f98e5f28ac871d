/* Memory and text: what a C library would have brought. */
#pragma once
#include "types.h"

void *memcpy(void *to, const void *from, u32 length);
void *memmove(void *to, const void *from, u32 length);
void *memset(void *to, int byte, u32 length);
int memcmp(const void *a, const void *b, u32 length);
u32 strlen(const char *text);

static inline bool same(const void *a, const void *b, u32 length) { return memcmp(a, b, length) == 0; }
bool same_text(const char *a, const char *b);

/* Text that grows in a buffer and never past its end. */
struct text {
    char *start;
    u32 length, room;
    bool cut;                           /* something did not fit */
};

/* Append by a format:
 *   %s text      %u u32, decimal (%6u: at least 6 digits)      %m MAC address (const u8 *)
 *   %c character %U u64, decimal                               %i IP address (const struct ip *)
 *                %x u32, hexadecimal                           %h, %j text, made safe for HTML, JSON
 */
void put(struct text *to, const char *format, ...);
void put_list(struct text *to, const char *format, __builtin_va_list values);
