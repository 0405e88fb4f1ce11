/* A V4L2 camera without a kernel module: preloaded, it answers the ioctls on one file as a driver would.
 *
 *     cc -shared -fPIC -o v4l2_double.so v4l2_double.c -ldl
 *     V4L2_DOUBLE=/path/of/a/file V4L2_FRAMES=10 V4L2_END=unplug LD_PRELOAD=./v4l2_double.so python …
 *
 * It gives YUYV in any size, at the rate that it is asked for. Luma is the number of the frame since the device was
 * opened, plus 20; chroma 128. After V4L2_FRAMES frames it is unplugged (ENODEV), or silent. One user at a time may stream,
 * the next gets EBUSY. The file itself is the memory that is mapped.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define BUFFERS 8
static int device = -1, nonblocking, width = 640, height = 480, fps = 30;
static unsigned frame;
static double began;
static int queued[BUFFERS], first, waiting; /* a ring of the buffers that were queued, oldest first */

static off_t slot(void) { /* bytes between two buffers: what is mapped begins with a page */
    return ((off_t)width * height * 2 + 4095) / 4096 * 4096;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static int fail(int code) {
    errno = code;
    return -1;
}

static int opened(int fd, const char *path, int flags) {
    const char *ours = getenv("V4L2_DOUBLE");
    if (fd < 0 || !ours || strcmp(path, ours)) return fd;
    if (device >= 0) {
        close(fd);
        return fail(EBUSY);
    }
    device = fd, nonblocking = !!(flags & O_NONBLOCK), frame = 0, first = waiting = 0;
    return fd;
}

#define OPEN(name)                                                                                                      \
    int name(const char *path, int flags, ...) {                                                                        \
        va_list rest;                                                                                                   \
        va_start(rest, flags);                                                                                          \
        int mode = va_arg(rest, int);                                                                                   \
        va_end(rest);                                                                                                   \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);                                                  \
        return opened(real(path, flags, mode), path, flags);                                                            \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    if (fd == device && fd >= 0) device = -1;
    int (*real)(int) = dlsym(RTLD_NEXT, "close");
    return real(fd);
}

static int dequeue(struct v4l2_buffer *buffer) {
    unsigned last = atoi(getenv("V4L2_FRAMES"));
    int size = width * height * 2;
    if (frame >= last && !strcmp(getenv("V4L2_END"), "unplug")) return fail(ENODEV);
    while (!waiting || frame >= last || now() < began + (frame + 1.0) / fps) {
        if (nonblocking) return fail(EAGAIN);
        usleep(1000);
    }
    int index = queued[first];
    first = (first + 1) % BUFFERS, waiting--;
    uint8_t *pixels = malloc(size);
    for (int i = 0; i < size; i += 2) pixels[i] = 20 + frame, pixels[i + 1] = 128;
    if (pwrite(device, pixels, size, index * slot()) != size) abort();
    free(pixels);
    double at = now();
    buffer->index = index, buffer->bytesused = size, buffer->sequence = frame++, buffer->flags = 0;
    buffer->timestamp.tv_sec = (long)at, buffer->timestamp.tv_usec = (long)((at - (long)at) * 1e6);
    return 0;
}

static int format(struct v4l2_format *wanted, int set) {
    struct v4l2_pix_format *pix = &wanted->fmt.pix;
    if (set && pix->width && pix->height) width = pix->width, height = pix->height;
    pix->width = width, pix->height = height, pix->pixelformat = V4L2_PIX_FMT_YUYV, pix->field = V4L2_FIELD_NONE;
    pix->bytesperline = width * 2, pix->sizeimage = width * height * 2;
    return 0;
}

static int rate(struct v4l2_streamparm *wanted, int set) {
    struct v4l2_captureparm *capture = &wanted->parm.capture;
    if (set && capture->timeperframe.numerator) fps = capture->timeperframe.denominator / capture->timeperframe.numerator;
    capture->capability = V4L2_CAP_TIMEPERFRAME;
    capture->timeperframe.numerator = 1, capture->timeperframe.denominator = fps;
    return 0;
}

static int describe(struct v4l2_buffer *buffer) {
    buffer->length = width * height * 2, buffer->m.offset = buffer->index * slot();
    return 0;
}

static int enqueue(const struct v4l2_buffer *buffer) {
    queued[(first + waiting++) % BUFFERS] = buffer->index;
    return 0;
}

static int start(void) {
    began = now();
    return 0;
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (fd != device || fd < 0) {
        int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
        return real(fd, request, argument);
    }
    struct v4l2_requestbuffers *asked = argument;
    switch ((uint32_t)request) {
    case VIDIOC_QUERYCAP:
        memset(argument, 0, sizeof(struct v4l2_capability));
        ((struct v4l2_capability *)argument)->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        return 0;
    case VIDIOC_G_INPUT: *(int *)argument = 0; return 0;
    case VIDIOC_ENUMINPUT: return ((struct v4l2_input *)argument)->index ? fail(EINVAL) : 0;
    case VIDIOC_G_FMT: return format(argument, 0);
    case VIDIOC_S_FMT: return format(argument, 1);
    case VIDIOC_G_PARM: return rate(argument, 0);
    case VIDIOC_S_PARM: return rate(argument, 1);
    case VIDIOC_REQBUFS:
        if (asked->count > BUFFERS) asked->count = BUFFERS;
        return ftruncate(fd, asked->count * slot());
    case VIDIOC_QUERYBUF: return describe(argument);
    case VIDIOC_QBUF: return enqueue(argument);
    case VIDIOC_DQBUF: return dequeue(argument);
    case VIDIOC_STREAMON: return start();
    case VIDIOC_STREAMOFF: return 0;
    default: return fail(EINVAL);
    }
}
