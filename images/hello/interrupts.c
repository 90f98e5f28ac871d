/* The interrupt table. The stubs are in boot.S; all of them end up in interrupt() below. */
#include "interrupts.h"
#include "console.h"

#define CODE_SEGMENT 8                  /* the flat one of boot.S */
#define INTERRUPT_GATE 0x8e             /* present, 32 bits, interrupts stay off in the handler */
#define STUB_SIZE 16
#define EXCEPTIONS 32

struct gate { u16 low, segment; u8 zero, type; u16 high; };

struct frame {                          /* what the stub left on the stack */
    u32 edi, esi, ebp, esp, ebx, edx, ecx, eax;
    u32 vector, error, eip, cs, eflags;
};

extern const u8 interrupt_stubs[];
static struct gate table[VECTORS];
static void (*handlers[VECTORS])(void);

void interrupts_start(void)
{
    const struct { u16 limit; u32 base; } __attribute__((packed)) where = { sizeof table - 1, (u32)table };

    for (u32 vector = 0; vector < VECTORS; vector++) {
        u32 stub = (u32)interrupt_stubs + vector * STUB_SIZE;
        table[vector] = (struct gate){ stub, CODE_SEGMENT, 0, INTERRUPT_GATE, stub >> 16 };
    }
    __asm__ volatile("lidt %0" : : "m"(where), "m"(table));
}

void interrupt_handle(u8 vector, void (*handler)(void))
{
    handlers[vector] = handler;
}

void interrupt(const struct frame *at)
{
    if (handlers[at->vector])
        handlers[at->vector]();
    else if (at->vector < EXCEPTIONS)
        fatal("the processor raised exception %u (error %x) at %x", at->vector, at->error, at->eip);
}
