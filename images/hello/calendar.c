/* Days are counted in years that begin on 1 March, so that the leap day comes last; 400 years
 * always have the same number of days. */
#include "calendar.h"

#define DAYS_IN_400_YEARS 146097
#define DAYS_TO_1970 719468             /* from 1 March of the year 0 */
#define DAY 86400

struct date { u32 year, month, day, weekday, hour, minute, second; };

/* Days from 1 March to the first day of a month; March is 0. */
static u32 days_before(u32 month) { return (153 * month + 2) / 5; }

u64 seconds_since_1970(u32 year, u32 month, u32 day, u32 hour, u32 minute, u32 second)
{
    u32 from_march = (month + 9) % 12;
    year -= month <= 2;
    u32 days = 365 * year + year / 4 - year / 100 + year / 400 + days_before(from_march) + day - 1;
    return (u64)(days - DAYS_TO_1970) * DAY + hour * 3600 + minute * 60 + second;
}

static struct date date_of(u64 seconds)
{
    u32 days = divide(seconds, DAY), rest = seconds - (u64)days * DAY;
    struct date d = { .weekday = (days + 4) % 7, .hour = rest / 3600, .minute = rest / 60 % 60, .second = rest % 60 };

    days += DAYS_TO_1970;
    u32 era = days / DAYS_IN_400_YEARS, in_era = days % DAYS_IN_400_YEARS;
    u32 year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    u32 in_year = in_era - (365 * year + year / 4 - year / 100);
    u32 from_march = (5 * in_year + 2) / 153;
    d.day = in_year - days_before(from_march) + 1;
    d.month = from_march < 10 ? from_march + 3 : from_march - 9;
    d.year = 400 * era + year + (d.month <= 2);
    return d;
}

void put_time(struct text *to, u64 seconds)
{
    struct date d = date_of(seconds);
    put(to, "%4u-%2u-%2u %2u:%2u:%2u UTC", d.year, d.month, d.day, d.hour, d.minute, d.second);
}

void put_http_date(struct text *to, u64 seconds)
{
    static const char days[7][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
    static const char months[12][4] = {
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    };
    struct date d = date_of(seconds);
    put(to, "%s, %2u %s %4u %2u:%2u:%2u GMT", days[d.weekday], d.day, months[d.month - 1], d.year,
        d.hour, d.minute, d.second);
}
