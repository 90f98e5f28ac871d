/* Lines on the console: "[0.012345] hello: listening on 10.0.0.2 port 80". */
#include "console.h"
#include "text.h"

#define LINE_MOST 256

static void print_line(const char *format, __builtin_va_list values)
{
    char room[LINE_MOST];
    struct text line = { room, 0, sizeof room - 2, false };     /* 2: the end of the line */
    u64 us = divide(machine->now_ns(), 1000), s = divide(us, 1000000);

    put(&line, "[%U.%6u] hello: ", s, (u32)(us - s * 1000000));
    put_list(&line, format, values);
    line.room = sizeof room;
    put(&line, "\r\n");
    machine->print(line.start, line.length);
}

void say(const char *format, ...)
{
    __builtin_va_list values;
    __builtin_va_start(values, format);
    print_line(format, values);
    __builtin_va_end(values);
}

void fatal(const char *format, ...)
{
    __builtin_va_list values;
    __builtin_va_start(values, format);
    print_line(format, values);
    machine->power_off();
}
