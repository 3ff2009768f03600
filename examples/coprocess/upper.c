/* A worker in C: frames in on standard input, frames out on standard output.
 * A frame is a length of four bytes, most significant first, then that many bytes.
 *
 *     cc -o upper upper.c
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

int main(void) {
    unsigned char head[4];
    while (fread(head, 1, 4, stdin) == 4) {
        size_t length = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
        unsigned char *data = malloc(length + 1);
        if (data == NULL || fread(data, 1, length, stdin) != length) return 1;
        for (size_t i = 0; i < length; i++) data[i] = (unsigned char)toupper(data[i]);
        if (fwrite(head, 1, 4, stdout) != 4 || fwrite(data, 1, length, stdout) != length) return 1;
        if (fflush(stdout) != 0) return 1;
        free(data);
    }
    return 0;
}
