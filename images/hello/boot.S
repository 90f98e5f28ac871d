/* The first instructions: two ways in, both in 32-bit protected mode without paging.
 *
 * Multiboot 1 (QEMU -kernel, GRUB): the header below, within the first 8 kB of the file; %eax holds
 * the loader's magic number and %ebx the address of its information.
 * PVH (Xen, and QEMU for files without a multiboot header): an ELF note of owner "Xen" names the
 * entry; %ebx holds the address of struct hvm_start_info, which begins with the magic number.
 */
#define MULTIBOOT_HEADER 0x1BADB002     /* Multiboot Specification 0.6.96, 3.1.2 */
#define MULTIBOOT_FLAGS 3               /* page-align modules; tell us about memory */
#define XEN_ELFNOTE_GUEST_OS 6          /* xen/include/public/elfnote.h */
#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define XEN_HVM_START_MAGIC 0x336ec578  /* xen/include/public/arch-x86/hvm/start_info.h */
#define STACK_SIZE 16384

    .section .multiboot, "a"
    .balign 4
    .long MULTIBOOT_HEADER, MULTIBOOT_FLAGS, -(MULTIBOOT_HEADER + MULTIBOOT_FLAGS)

    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY    /* sizes of name and value, type */
    .asciz "Xen"
    .long pvh_entry
    .long 4, 15, XEN_ELFNOTE_GUEST_OS       /* who we are: images/inspect.py reads it */
    .asciz "Xen"
    .asciz "edgewake-hello"
    .balign 4

    .text
    .globl multiboot_entry, pvh_entry
pvh_entry:
    mov $XEN_HVM_START_MAGIC, %eax
multiboot_entry:
    cli
    cld
    mov $stack_top, %esp
    lgdt gdt_register                   /* the loader's segments may lie in memory we use */
    ljmp $8, $1f
1:  mov $16, %ecx
    mov %ecx, %ds
    mov %ecx, %es
    mov %ecx, %fs
    mov %ecx, %gs
    mov %ecx, %ss
    push %ebx                           /* hello(magic, boot_info) */
    push %eax
    call hello
2:  hlt
    jmp 2b

/* One short stub for each interrupt vector: note the number, save the registers, call C. Some
 * exceptions bring an error code; the others get a zero in its place, so that frames are alike. */
    .globl interrupt_stubs
    .balign 16
interrupt_stubs:
    .set vector, 0
    .rept 64
    .balign 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
    push $0
    .endif
    push $vector
    jmp interrupt_common
    .set vector, vector + 1
    .endr

interrupt_common:
    pusha
    cld
    push %esp                           /* interrupt(struct frame *) */
    call interrupt
    add $4, %esp
    popa
    add $8, %esp                        /* the vector and the error code */
    iret

    .section .rodata
    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9a000000ffff            /* 8: code, all 4 GiB */
    .quad 0x00cf92000000ffff            /* 16: data and stack, all 4 GiB */
gdt_register:
    .word gdt_register - gdt - 1
    .long gdt

    .bss
    .balign 16
    .skip STACK_SIZE
stack_top:

    .section .note.GNU-stack, "", @progbits
