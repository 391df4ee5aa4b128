/* What clients of /dev/kvm have in common, whatever their processor is. */
#include <stdbool.h>
#include <stdint.h>

extern bool ticks;      /* lines tell the time that their phases took */
extern int failures;

_Noreturn void die(const char *what);
int call(int fd, unsigned long request, void *argument, const char *what);

/* A phase of the vcpu with these statistics begins. */
void begin_phase(int stats);
/* It ends: its line is printed. */
void end_phase(int stats, const char *name, long count, bool pass, const uint64_t answers[2]);

/* The sum of first, first + 1, ... */
uint64_t series(uint64_t first, uint64_t count);
