/* Single instructions of the processor that C has no words for. */
#pragma once
#include "types.h"

static inline u8 inb(u16 port) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline u16 inw(u16 port) { u16 v; __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline u32 inl(u16 port) { u32 v; __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline void outb(u16 port, u8 v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
static inline void outw(u16 port, u16 v) { __asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
static inline void outl(u16 port, u32 v) { __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory"); }

struct cpuid { u32 a, b, c, d; };

static inline struct cpuid cpuid(u32 leaf)
{
    struct cpuid r;
    __asm__ volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(0));
    return r;
}

static inline u64 rdtsc(void) { u64 v; __asm__ volatile("rdtsc" : "=A"(v)); return v; }
static inline u64 rdmsr(u32 msr) { u64 v; __asm__ volatile("rdmsr" : "=A"(v) : "c"(msr)); return v; }
static inline void wrmsr(u32 msr, u64 v) { __asm__ volatile("wrmsr" : : "c"(msr), "A"(v) : "memory"); }

/* All reads and writes before are done before any after: other processors run the devices. */
static inline void barrier(void) { __asm__ volatile("lock; addl $0, (%%esp)" : : : "memory", "cc"); }

static inline void interrupts_off(void) { __asm__ volatile("cli" : : : "memory"); }
static inline void interrupts_on(void) { __asm__ volatile("sti" : : : "memory"); }
/* Allow interrupts and sleep until one comes; none can slip in between. Off again afterwards. */
static inline void sleep_until_interrupt(void) { __asm__ volatile("sti; hlt; cli" : : : "memory"); }
