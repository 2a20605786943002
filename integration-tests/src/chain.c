// A chain of processes: each detaches itself, starts the next one and ends. The last one stays.
#include <unistd.h>

int main(void) {
    for (int n = 0; n < 5000; n++) {
        if (fork() != 0) _exit(0);
        setsid();
    }
    for (;;) pause();
}
