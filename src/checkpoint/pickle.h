/* Reads the pickles that torch.save writes, and nothing else: an allow-list machine that builds plain data. No opcode
 * of it calls, imports or names anything outside the tables of pickle.c; everything not in them is refused by name.
 * Iterative, with bounds on depth, nodes, memo and text. */
#ifndef XKD_CHECKPOINT_PICKLE_H
#define XKD_CHECKPOINT_PICKLE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "tensor/dtype.h"

typedef enum {
    XKD_PICKLE_NONE,
    XKD_PICKLE_BOOL,
    XKD_PICKLE_INT,
    XKD_PICKLE_FLOAT,
    XKD_PICKLE_TEXT,
    XKD_PICKLE_TUPLE,
    XKD_PICKLE_LIST,
    XKD_PICKLE_DICT, /* items are key, value, key, value; an OrderedDict is `ordered` */
    XKD_PICKLE_GLOBAL,
    XKD_PICKLE_STORAGE,
    XKD_PICKLE_TENSOR,
    XKD_PICKLE_OPAQUE /* an object of a listed class (`object`), or the class: nothing of it is kept but its name */
} xkd_pickle_kind;

/* A storage as the pickle names it: `count` elements under `key`. */
typedef struct {
    xkd_dtype dtype;
    int64_t key;   /* node number of the key's text */
    int64_t count; /* elements */
} xkd_pickle_storage;

typedef struct {
    int64_t storage; /* node number */
    int64_t offset;  /* elements */
    xkd_shape shape;
    int64_t stride[XKD_MAX_DIMS]; /* elements */
} xkd_pickle_tensor;

typedef struct {
    xkd_pickle_kind kind;
    int depth;   /* 1 + that of the deepest item */
    bool sealed; /* already part of another value: no longer changed, so that nothing can contain itself */
    bool ordered, object;
    bool dropped; /* of a dict: it had items whose keys are no text or integer; they are not among its items */
    union {
        bool truth;
        int64_t integer;
        double real;
        struct {
            const char *data; /* inside the pickle, not terminated */
            int64_t size;
        } text;
        struct {
            int64_t *items, count, capacity; /* node numbers */
        } list;
        int global; /* row of the table of globals; of an opaque value: of the table of inert ones, or behind its end */
        xkd_pickle_storage storage;
        int64_t tensor; /* index into the pickle's tensors */
    } as;
} xkd_pickle_node;

typedef struct {
    xkd_pickle_node *nodes;
    int64_t count, capacity;
    xkd_pickle_tensor *tensors; /* apart from the nodes, most of which are small */
    int64_t tensor_count, tensor_capacity;
    int64_t root;
} xkd_pickle;

/* Values that a pickle may hold; a tensor of a checkpoint takes 18. */
enum { XKD_PICKLE_MOST_VALUES = 1 << 19 };

/* Reads one pickle from data[0 .. size). `used` NULL: bytes behind its end are refused; else it gets the number of bytes
 * read. XKD_ERR_CHECKPOINT names path, offset and what was refused. Texts point into data, which must outlive the
 * result. Free with xkd_pickle_free, also after an error. */
xkd_status xkd_pickle_read(xkd_context *cx, const char *path, const unsigned char *data, int64_t size, int64_t *used,
                           xkd_pickle *out);
void xkd_pickle_free(xkd_pickle *p);

/* "argparse.Namespace": what an opaque node is of. */
void xkd_pickle_opaque_name(const xkd_pickle_node *node, char *out, size_t size);

/* Whether a text node holds exactly this string. */
bool xkd_pickle_is(const xkd_pickle *p, int64_t node, const char *text);

/* Value of a key of a dict node, -1 if it has none. */
int64_t xkd_pickle_get(const xkd_pickle *p, int64_t dict, const char *key);

#endif
