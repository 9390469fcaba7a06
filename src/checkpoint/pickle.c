/* A reader of Python's pickle format that cannot run anything. The opcodes of protocol 2 that PyTorch
 * writes build a tree of plain values; calls are allowed for a fixed list of names, and each of them
 * only makes another plain value. Every limit below exists because the file may come from anybody. */
#include "checkpoint/pickle.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "checkpoint/pickle_names.h"

enum {
    MOST_DEPTH = 64, /* values inside values; a state dict needs 6 */
    MOST_NODES = XKD_PICKLE_MOST_VALUES,
    MOST_MEMO = MOST_NODES,
    MOST_ITEMS = 2 * MOST_NODES, /* references from containers to values, which may be shared */
    MOST_TEXT = 1 << 24,         /* bytes of one string; numpy's arrays are written as strings */
    MOST_LONG = 64               /* bytes of an integer; states of random generators have 16 */
};

enum { MARK = -1 };

/* The state of the machine: input, stack and memo hold numbers of nodes, nodes are in `out`. */
typedef struct {
    xkd_context *cx;
    const char *path;
    const unsigned char *data;   /* the caller's */
    int64_t size, at, opcode_at; /* opcode_at: for messages */
    xkd_pickle *out;             /* receives the nodes */
    int64_t *stack;              /* node numbers; MARK */
    int64_t depth, stack_capacity;
    int64_t *memo; /* node numbers; 0: empty, else number + 1 */
    int64_t memo_size;
    int marks;     /* open marks */
    int64_t items; /* in all containers together */
} machine;

/* For functions whose machine is `m`. */
#define REFUSE(...) return refuse(m, __VA_ARGS__)

__attribute__((format(printf, 2, 3))) static xkd_status refuse(machine *m, const char *format, ...)
{
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return xkd_fail(m->cx, XKD_ERR_CHECKPOINT, "%s: pickle: %s (at byte %" PRId64 ")", m->path, what, m->opcode_at);
}

/* Every byte is taken through here, so no read passes the end. */
static xkd_status take(machine *m, int64_t bytes, const unsigned char **out)
{
    if (bytes < 0 || bytes > m->size - m->at) REFUSE("it is cut off");
    *out = m->data + m->at;
    m->at += bytes;
    return XKD_OK;
}

/* Little endian; bytes up to 8. */
static xkd_status take_number(machine *m, int bytes, uint64_t *out)
{
    const unsigned char *p = NULL;
    xkd_status status = take(m, bytes, &p);
    *out = 0;
    for (int i = bytes - 1; status == XKD_OK && i >= 0; i--) *out = *out << 8 | p[i];
    return status;
}

/* Valid until the next push, which may move the array. */
static xkd_pickle_node *node_at(const machine *m, int64_t number)
{
    return &m->out->nodes[number];
}

/* The stack may hold one node many times. */
static xkd_status push_number(machine *m, int64_t number)
{
    if (m->depth >= MOST_NODES) REFUSE("more than %d values on the stack", MOST_NODES);
    xkd_status status = xkd_reserve(m->cx, &m->stack, m->depth, &m->stack_capacity, sizeof *m->stack);
    if (status == XKD_OK) m->stack[m->depth++] = number;
    return status;
}

/* Adds a node and pushes it. */
static xkd_status push(machine *m, xkd_pickle_node node)
{
    xkd_pickle *p = m->out;
    if (p->count >= MOST_NODES) REFUSE("more than %d values", MOST_NODES);
    xkd_status status = xkd_reserve(m->cx, &p->nodes, p->count, &p->capacity, sizeof *p->nodes);
    if (status != XKD_OK) return status;
    if (node.depth == 0) node.depth = 1;
    p->nodes[p->count] = node;
    return push_number(m, p->count++);
}

/* A mark is no value. */
static xkd_status pop(machine *m, int64_t *out)
{
    if (m->depth == 0 || m->stack[m->depth - 1] == MARK) REFUSE("a value is missing on the stack");
    *out = m->stack[--m->depth];
    return XKD_OK;
}

/* Stack index of the topmost mark.
 * O(depth), but marks are bounded and close to the top in real files. */
static xkd_status find_mark(machine *m, int64_t *out)
{
    for (int64_t i = m->depth - 1; i >= 0; i--)
        if (m->stack[i] == MARK) {
            *out = i;
            return XKD_OK;
        }
    REFUSE("a mark is missing on the stack");
}

/* Appends `item` to a tuple, list or dict, and seals it.
 * Sealed values may not change any more: so no value can come to contain itself, and depths stay
 * right. */
static xkd_status append(machine *m, int64_t list, int64_t item)
{
    xkd_pickle_node *to = node_at(m, list);
    if (item == list) REFUSE("a value would contain itself");
    if (++m->items > MOST_ITEMS) REFUSE("more than %d items", MOST_ITEMS);
    if (to->as.list.count == to->as.list.capacity) {
        int64_t larger = to->as.list.capacity ? 2 * to->as.list.capacity : 4;
        xkd_status status = xkd_resize(m->cx, &to->as.list.items, to->as.list.count, larger, sizeof *to->as.list.items);
        if (status != XKD_OK) return status;
        to->as.list.capacity = larger;
    }
    to->as.list.items[to->as.list.count++] = item;
    int depth = node_at(m, item)->depth + 1;
    if (depth > to->depth) to->depth = depth;
    if (depth > MOST_DEPTH) REFUSE("values nested deeper than %d", MOST_DEPTH);
    node_at(m, item)->sealed = true;
    return XKD_OK;
}

/* A tuple of the stack's values from index `first` on.
 * The tuple replaces the values. */
static xkd_status make_tuple(machine *m, int64_t first)
{
    xkd_status status = XKD_OK;
    int64_t top = m->depth;
    for (int64_t i = first; i < top; i++)
        if (m->stack[i] == MARK) REFUSE("a mark within a tuple");
    /* Pushing may grow the stack's memory; indices stay valid where pointers would not. */
    XKD_TRY(push(m, (xkd_pickle_node){.kind = XKD_PICKLE_TUPLE}));
    int64_t tuple = m->stack[--m->depth];
    for (int64_t i = first; i < top; i++) XKD_TRY(append(m, tuple, m->stack[i]));
    m->depth = first;
    XKD_TRY(push_number(m, tuple));
fail:
    return status;
}

/* An opaque value that takes items and state, and drops them; its class takes arguments alone. */
static bool is_object(const xkd_pickle_node *n)
{
    return n->kind == XKD_PICKLE_OPAQUE && n->object;
}

/* Plain values that Python takes as keys, in what stands beside the weights. No state dict has them, and no name comes of
 * them. */
static bool is_odd_key(const xkd_pickle_node *k)
{
    return k->kind == XKD_PICKLE_NONE || k->kind == XKD_PICKLE_BOOL || k->kind == XKD_PICKLE_FLOAT ||
           k->kind == XKD_PICKLE_TUPLE;
}

/* Keys are text or integers; items under numbers with a fraction, tuples and the like are dropped, which the dict notes. */
static xkd_status set_item(machine *m, int64_t dict, int64_t key, int64_t value)
{
    xkd_status status = XKD_OK;
    const xkd_pickle_node *d = node_at(m, dict), *k = node_at(m, key);
    if (is_object(d)) return XKD_OK; /* its items are dropped */
    if (d->kind != XKD_PICKLE_DICT) REFUSE("SETITEM on a value that is no dict");
    if (d->sealed) REFUSE("a dict is changed after it became part of another value");
    if (is_odd_key(k)) {
        node_at(m, dict)->dropped = true;
        return XKD_OK;
    }
    if (k->kind != XKD_PICKLE_TEXT && k->kind != XKD_PICKLE_INT) REFUSE("a dict key that is no text or integer");
    XKD_TRY(append(m, dict, key));
    XKD_TRY(append(m, dict, value));
fail:
    return status;
}

/* Pairs above the mark go into the dict below it. */
static xkd_status set_items(machine *m)
{
    xkd_status status = XKD_OK;
    int64_t mark = 0;
    XKD_TRY(find_mark(m, &mark));
    if ((m->depth - mark) % 2 == 0 || mark == 0 || m->stack[mark - 1] == MARK)
        REFUSE("SETITEMS without a dict or a pair");
    for (int64_t i = mark + 1; i < m->depth; i += 2)
        XKD_TRY(set_item(m, m->stack[mark - 1], m->stack[i], m->stack[i + 1]));
    /* Mark and pairs go; the dict below stays on top. */
    m->depth = mark;
    m->marks--;
fail:
    return status;
}

/* Items of an opaque value. */
static xkd_status drop_items(machine *m, int64_t first, int64_t list_at)
{
    for (int64_t i = first; i < m->depth; i++)
        if (m->stack[i] == MARK) REFUSE("a mark within a list");
    m->depth = list_at + 1;
    return XKD_OK;
}

/* For APPEND and APPENDS alike: values from `first` on go into the list at `list_at`. */
static xkd_status append_items(machine *m, int64_t first, int64_t list_at)
{
    xkd_status status = XKD_OK;
    if (list_at < 0 || m->stack[list_at] == MARK) REFUSE("APPEND without a list");
    int64_t list = m->stack[list_at];
    if (is_object(node_at(m, list))) return drop_items(m, first, list_at);
    if (node_at(m, list)->kind != XKD_PICKLE_LIST) REFUSE("APPEND on a value that is no list");
    if (node_at(m, list)->sealed) REFUSE("a list is changed after it became part of another value");
    for (int64_t i = first; i < m->depth; i++) {
        if (m->stack[i] == MARK) REFUSE("a mark within a list");
        XKD_TRY(append(m, list, m->stack[i]));
    }
    m->depth = list_at + 1;
fail:
    return status;
}

/* Names in GLOBAL are lines of text. */
static xkd_status read_line(machine *m, char *out, size_t size)
{
    const unsigned char *end = memchr(m->data + m->at, '\n', (size_t)(m->size - m->at));
    int64_t length = end ? end - (m->data + m->at) : -1;
    if (length < 0 || (size_t)length >= size) REFUSE("the name of a global is cut off or too long");
    memcpy(out, m->data + m->at, (size_t)length);
    out[length] = 0;
    for (int64_t i = 0; i < length; i++)
        if (!isgraph((unsigned char)out[i])) REFUSE("the name of a global has strange characters");
    m->at += length + 1;
    return XKD_OK;
}

/* The name is looked up, never imported. */
static xkd_status push_global(machine *m)
{
    xkd_status status = XKD_OK;
    char module[160], name[160];
    XKD_TRY(read_line(m, module, sizeof module));
    XKD_TRY(read_line(m, name, sizeof name));
    int number = xkd_pickle_find_global(module, name);
    if (number >= 0) return push(m, (xkd_pickle_node){.kind = XKD_PICKLE_GLOBAL, .as.global = number});
    number = xkd_pickle_find_inert(module, name);
    if (number >= 0) return push(m, (xkd_pickle_node){.kind = XKD_PICKLE_OPAQUE, .as.global = number});
    REFUSE("the global '%s.%s' is refused: only what state dicts need is read, and nothing is ever run (save "
           "model.state_dict() alone)",
           module, name);
fail:
    return status;
}

/* The text is not copied: it stays in the file, which outlives the tree. */
static xkd_status push_text(machine *m)
{
    xkd_status status = XKD_OK;
    uint64_t size = 0;
    const unsigned char *data = NULL;
    XKD_TRY(take_number(m, 4, &size));
    if (size > MOST_TEXT) REFUSE("a text of %" PRIu64 " bytes", size);
    XKD_TRY(take(m, (int64_t)size, &data));
    XKD_TRY(push(m, (xkd_pickle_node){.kind = XKD_PICKLE_TEXT, .as.text = {(const char *)data, (int64_t)size}}));
fail:
    return status;
}

/* LONG1: a little-endian two's complement integer, sign-extended. Those of more than 8 bytes are opaque: they stand beside
 * the weights, in the states of random generators (torch_file.c compares the magic number of old files as bytes). */
static xkd_status push_long(machine *m)
{
    xkd_status status = XKD_OK;
    uint64_t size = 0, value = 0;
    XKD_TRY(take_number(m, 1, &size));
    if (size > MOST_LONG) REFUSE("an integer of more than %d bits", 8 * MOST_LONG);
    if (size > 8) {
        const unsigned char *bytes;
        XKD_TRY(take(m, (int64_t)size, &bytes));
        return push(m, (xkd_pickle_node){.kind = XKD_PICKLE_OPAQUE, .object = true, .as.global = XKD_PICKLE_WIDE});
    }
    XKD_TRY(take_number(m, (int)size, &value));
    if (size && size < 8 && value >> (8 * size - 1)) value |= UINT64_MAX << (8 * size);
    XKD_TRY(push(m, (xkd_pickle_node){.kind = XKD_PICKLE_INT, .as.integer = (int64_t)value}));
fail:
    return status;
}

static xkd_status push_float(machine *m)
{
    xkd_status status = XKD_OK;
    const unsigned char *p = NULL;
    uint64_t bits = 0;
    double value;
    XKD_TRY(take(m, 8, &p));
    for (int i = 0; i < 8; i++) bits = bits << 8 | p[i]; /* BINFLOAT is big-endian */
    memcpy(&value, &bits, sizeof value);
    XKD_TRY(push(m, (xkd_pickle_node){.kind = XKD_PICKLE_FLOAT, .as.real = value}));
fail:
    return status;
}

/* The memo lets a file refer to a value again. 0 means empty, so numbers are stored plus 1. */
static xkd_status memo_put(machine *m, uint64_t slot)
{
    if (m->depth == 0 || m->stack[m->depth - 1] == MARK) REFUSE("nothing to remember");
    if (slot >= MOST_MEMO) REFUSE("memo slot %" PRIu64 " is beyond %d", slot, MOST_MEMO);
    if ((int64_t)slot >= m->memo_size) {
        int64_t larger = m->memo_size ? m->memo_size : 256;
        while (larger <= (int64_t)slot) larger *= 2;
        xkd_status status = xkd_resize(m->cx, &m->memo, m->memo_size, larger, sizeof *m->memo);
        if (status != XKD_OK) return status;
        m->memo_size = larger;
    }
    /* A slot may be written again; later reads then get the newer value, as in Python. */
    m->memo[slot] = m->stack[m->depth - 1] + 1;
    return XKD_OK;
}

static xkd_status memo_get(machine *m, uint64_t slot)
{
    if (slot >= (uint64_t)m->memo_size || !m->memo[slot]) REFUSE("memo slot %" PRIu64 " is empty", slot);
    return push_number(m, m->memo[slot] - 1);
}

/* Item i of a tuple or list node, NULL if it has none.
 * For reading arguments. */
static const xkd_pickle_node *item(const machine *m, const xkd_pickle_node *list, int64_t i)
{
    return i < list->as.list.count ? node_at(m, list->as.list.items[i]) : NULL;
}

static bool is_kind(const xkd_pickle_node *n, xkd_pickle_kind kind)
{
    return n && n->kind == kind;
}

/* BINPERSID of ('storage', type, key, device, count[, None]).
 * The device is ignored: all data go to memory. */
static xkd_status push_storage(machine *m)
{
    xkd_status status = XKD_OK;
    int64_t id = 0;
    XKD_TRY(pop(m, &id));
    const xkd_pickle_node *t = node_at(m, id), *type = NULL;
    bool good = t->kind == XKD_PICKLE_TUPLE && (t->as.list.count == 5 || t->as.list.count == 6);
    if (good) {
        type = item(m, t, 1);
        good = xkd_pickle_is(m->out, t->as.list.items[0], "storage") && is_kind(type, XKD_PICKLE_GLOBAL) &&
               xkd_pickle_global_at(type->as.global)->kind == XKD_PICKLE_STORAGE_TYPE &&
               is_kind(item(m, t, 2), XKD_PICKLE_TEXT) && is_kind(item(m, t, 3), XKD_PICKLE_TEXT) &&
               is_kind(item(m, t, 4), XKD_PICKLE_INT) && item(m, t, 4)->as.integer >= 0 &&
               (t->as.list.count == 5 || is_kind(item(m, t, 5), XKD_PICKLE_NONE));
    }
    /* PyTorch uses persistent ids for storages alone. */
    if (!good) REFUSE("a persistent id that is no storage");
    xkd_pickle_storage s = {xkd_pickle_global_at(type->as.global)->dtype, t->as.list.items[2],
                            item(m, t, 4)->as.integer};
    XKD_TRY(push(m, (xkd_pickle_node){.kind = XKD_PICKLE_STORAGE, .as.storage = s}));
fail:
    return status;
}

/* A tuple of non-negative integers into dims; *ndim -1 if it is none.
 * Also takes torch.Size, which is its tuple. */
static void read_dims(const machine *m, const xkd_pickle_node *n, int *ndim, int64_t *dims)
{
    *ndim = -1;
    if (!is_kind(n, XKD_PICKLE_TUPLE) || n->as.list.count > XKD_MAX_DIMS) return;
    for (int64_t i = 0; i < n->as.list.count; i++) {
        if (!is_kind(item(m, n, i), XKD_PICKLE_INT) || item(m, n, i)->as.integer < 0) return;
        dims[i] = item(m, n, i)->as.integer;
    }
    *ndim = (int)n->as.list.count;
}

/* Whether the elements a view touches lie within its storage; products are checked for overflow.
 * Offsets and strides are counted in elements and never negative. */
static bool view_fits(const xkd_pickle_tensor *t, int64_t storage)
{
    int64_t last = t->offset, count = xkd_shape_count(&t->shape);
    if (count < 0 || t->offset > storage) return false;
    if (count == 0) return true;
    for (int i = 0; i < t->shape.ndim; i++) {
        int64_t step;
        if (__builtin_mul_overflow(t->shape.dims[i] - 1, t->stride[i], &step) ||
            __builtin_add_overflow(last, step, &last))
            return false;
    }
    return last < storage;
}

/* Metadata say that the numbers of the storage are not the tensor's: that they are to be negated or conjugated. */
static xkd_status check_tensor_metadata(machine *m, const xkd_pickle_node *metadata)
{
    if (!metadata || metadata->kind == XKD_PICKLE_NONE) return XKD_OK;
    if (metadata->kind != XKD_PICKLE_DICT) REFUSE("a tensor whose metadata are no dict");
    const xkd_pickle_node *key = item(m, metadata, 0);
    if (!key) return XKD_OK;
    char shown[100] = "?";
    if (key->kind == XKD_PICKLE_TEXT) xkd_escape(shown, sizeof shown, key->as.text.data, (size_t)key->as.text.size, "");
    REFUSE("a tensor with the metadata '%s': only plain tensors are read (resolve_neg() or resolve_conj() makes one)",
           shown);
}

/* Nothing of a tensor may come from what was not read. */
static bool has_opaque(const machine *m, const xkd_pickle_node *args)
{
    for (int64_t i = 0; i < args->as.list.count; i++)
        if (is_kind(item(m, args, i), XKD_PICKLE_OPAQUE)) return true;
    return false;
}

/* _rebuild_tensor[_v2](storage, offset, size, stride[, requires_grad, hooks[, metadata]])
 * requires_grad and hooks are ignored. */
static xkd_status push_tensor(machine *m, const xkd_pickle_node *args)
{
    const xkd_pickle_node *storage = item(m, args, 0), *offset = item(m, args, 1);
    xkd_pickle_tensor t;
    int strides;
    if (args->as.list.count < 4 || args->as.list.count > 7 || !is_kind(storage, XKD_PICKLE_STORAGE) ||
        !is_kind(offset, XKD_PICKLE_INT) || offset->as.integer < 0 || has_opaque(m, args))
        REFUSE("a tensor with wrong arguments");
    t.storage = args->as.list.items[0];
    t.offset = offset->as.integer;
    read_dims(m, item(m, args, 2), &t.shape.ndim, t.shape.dims);
    read_dims(m, item(m, args, 3), &strides, t.stride);
    if (t.shape.ndim < 0 || strides != t.shape.ndim)
        REFUSE("a tensor whose size or stride is no tuple of at most %d integers", XKD_MAX_DIMS);
    if (!view_fits(&t, storage->as.storage.count)) REFUSE("a tensor that reaches beyond its storage");
    xkd_pickle *p = m->out;
    xkd_status status = check_tensor_metadata(m, item(m, args, 6));
    if (status != XKD_OK) return status;
    status = xkd_reserve(m->cx, &p->tensors, p->tensor_count, &p->tensor_capacity, sizeof *p->tensors);
    if (status != XKD_OK) return status;
    p->tensors[p->tensor_count] = t;
    return push(m, (xkd_pickle_node){.kind = XKD_PICKLE_TENSOR, .as.tensor = p->tensor_count++});
}

/* What an inert name would have made: an object of which nothing is known. */
static xkd_status make_opaque(machine *m, const xkd_pickle_node *callable, const xkd_pickle_node *args)
{
    if (callable->object) REFUSE("a call of an object");
    if (args->kind != XKD_PICKLE_TUPLE) REFUSE("arguments that are no tuple");
    return push(m, (xkd_pickle_node){.kind = XKD_PICKLE_OPAQUE, .object = true, .as.global = callable->as.global});
}

/* NEWOBJ: an object of a class, of which only inert ones are known. */
static xkd_status new_object(machine *m)
{
    xkd_status status = XKD_OK;
    int64_t args_at = 0, class_at = 0;
    if (m->depth < 2) REFUSE("the opcode 0x81 (NEWOBJ) without a class");
    XKD_TRY(pop(m, &args_at));
    XKD_TRY(pop(m, &class_at));
    if (node_at(m, class_at)->kind != XKD_PICKLE_OPAQUE)
        REFUSE("the opcode 0x81 (NEWOBJ) of something that is no inert class");
    return make_opaque(m, node_at(m, class_at), node_at(m, args_at));
fail:
    return status;
}

/* A call makes at most one node; nothing is executed. */
static xkd_status reduce(machine *m)
{
    xkd_status status = XKD_OK;
    int64_t args_at = 0, callable_at = 0;
    XKD_TRY(pop(m, &args_at));
    XKD_TRY(pop(m, &callable_at));
    const xkd_pickle_node *args = node_at(m, args_at), *callable = node_at(m, callable_at);
    if (callable->kind == XKD_PICKLE_OPAQUE) return make_opaque(m, callable, args);
    if (callable->kind != XKD_PICKLE_GLOBAL || args->kind != XKD_PICKLE_TUPLE)
        REFUSE("REDUCE of something that is no global");
    int64_t n = args->as.list.count, first = n ? args->as.list.items[0] : -1;
    switch (xkd_pickle_global_at(callable->as.global)->kind) {
    /* torch.save gives state dicts as an empty OrderedDict that is filled afterwards. */
    case XKD_PICKLE_ORDERED_DICT:
        if (n) REFUSE("OrderedDict with arguments");
        return push(m, (xkd_pickle_node){.kind = XKD_PICKLE_DICT, .ordered = true});
    case XKD_PICKLE_REBUILD_V2:
    case XKD_PICKLE_REBUILD: return push_tensor(m, args);
    case XKD_PICKLE_PARAMETER:
        if (n < 1 || n > 4 || node_at(m, first)->kind != XKD_PICKLE_TENSOR || has_opaque(m, args))
            REFUSE("a parameter without tensor");
        return push_number(m, first);
    case XKD_PICKLE_SIZE:
        if (n != 1 || node_at(m, first)->kind != XKD_PICKLE_TUPLE) REFUSE("torch.Size of something that is no tuple");
        return push_number(m, first);
    case XKD_PICKLE_DEVICE:
        if (n < 1 || n > 2 || node_at(m, first)->kind != XKD_PICKLE_TEXT)
            REFUSE("torch.device of something that is no text");
        return push_number(m, first);
    default: break;
    }
    REFUSE("a call of %s.%s", xkd_pickle_global_at(callable->as.global)->module,
           xkd_pickle_global_at(callable->as.global)->name);
fail:
    return status;
}

/* BUILD sets attributes: the _metadata of an OrderedDict are read and dropped, anything else is refused. The value itself
 * stays on the stack. It must be part of no other value yet, which could be its own state; and the state changes no
 * more, so that it cannot come to hold the value either. */
static xkd_status build(machine *m)
{
    xkd_status status = XKD_OK;
    int64_t state = 0;
    XKD_TRY(pop(m, &state));
    if (m->depth == 0 || m->stack[m->depth - 1] == MARK) REFUSE("BUILD without a value");
    const xkd_pickle_node *target = node_at(m, m->stack[m->depth - 1]), *attributes = node_at(m, state);
    if (is_object(target)) return XKD_OK; /* its state is dropped */
    if (target->kind != XKD_PICKLE_DICT || !target->ordered || attributes->kind != XKD_PICKLE_DICT)
        REFUSE("BUILD on a value that is no OrderedDict");
    if (state == m->stack[m->depth - 1]) REFUSE("a value would contain itself");
    if (target->sealed) REFUSE("BUILD on a dict after it became part of another value");
    if (attributes->as.list.count != 2 || !xkd_pickle_is(m->out, attributes->as.list.items[0], "_metadata"))
        REFUSE("BUILD with other attributes than _metadata");
    node_at(m, state)->sealed = true;
fail:
    return status;
}

/* Bounded, because each open mark makes find_mark longer. */
static xkd_status push_mark(machine *m)
{
    if (++m->marks > MOST_DEPTH) REFUSE("more than %d open marks", MOST_DEPTH);
    return push_number(m, MARK);
}

/* The mark's place takes the tuple. */
static xkd_status tuple_from_mark(machine *m)
{
    xkd_status status = XKD_OK;
    int64_t mark = 0;
    XKD_TRY(find_mark(m, &mark));
    XKD_TRY(make_tuple(m, mark + 1));
    m->stack[mark] = m->stack[m->depth - 1];
    m->depth = mark + 1;
    m->marks--;
fail:
    return status;
}

static xkd_status appends(machine *m)
{
    xkd_status status = XKD_OK;
    int64_t mark = 0;
    XKD_TRY(find_mark(m, &mark));
    XKD_TRY(append_items(m, mark + 1, mark - 1));
    m->marks--;
fail:
    return status;
}

/* The pair is above the dict. */
static xkd_status set_one(machine *m)
{
    xkd_status status = XKD_OK;
    int64_t key = 0, value = 0;
    XKD_TRY(pop(m, &value));
    XKD_TRY(pop(m, &key));
    if (m->depth == 0 || m->stack[m->depth - 1] == MARK) REFUSE("SETITEM without a dict");
    XKD_TRY(set_item(m, m->stack[m->depth - 1], key, value));
fail:
    return status;
}

static xkd_status small_tuple(machine *m, int64_t n)
{
    if (m->depth < n) REFUSE("a value is missing on the stack");
    return make_tuple(m, m->depth - n);
}

/* Opcodes with a number behind them.
 * Little endian; J alone is signed. */
static xkd_status number_opcode(machine *m, unsigned char op)
{
    uint64_t value = 0;
    int bytes = op == 'M' ? 2 : op == 'J' || op == 'r' || op == 'j' ? 4 : 1;
    xkd_status status = take_number(m, bytes, &value);
    if (status != XKD_OK) return status;
    if (op == 'q' || op == 'r') return memo_put(m, value);
    if (op == 'h' || op == 'j') return memo_get(m, value);
    int64_t integer = op == 'J' ? (int32_t)value : (int64_t)value;
    return push(m, (xkd_pickle_node){.kind = XKD_PICKLE_INT, .as.integer = integer});
}

/* The opcodes by their bytes as pickletools lists them; any other ends the reading. */
static xkd_status step(machine *m, unsigned char op)
{
    uint64_t protocol;
    xkd_status status;
    switch (op) {
    case 0x80: /* PROTO */
        status = take_number(m, 1, &protocol);
        if (status == XKD_OK && protocol != 2)
            REFUSE("protocol %" PRIu64 ": only 2, which torch.save writes unless told otherwise, is read", protocol);
        return status;
    case '(': return push_mark(m);
    case ')': return push(m, (xkd_pickle_node){.kind = XKD_PICKLE_TUPLE});
    case ']': return push(m, (xkd_pickle_node){.kind = XKD_PICKLE_LIST});
    case '}': return push(m, (xkd_pickle_node){.kind = XKD_PICKLE_DICT});
    case 'N': return push(m, (xkd_pickle_node){.kind = XKD_PICKLE_NONE});
    case 0x88: return push(m, (xkd_pickle_node){.kind = XKD_PICKLE_BOOL, .as.truth = true});
    case 0x89: return push(m, (xkd_pickle_node){.kind = XKD_PICKLE_BOOL, .as.truth = false});
    case 'X': return push_text(m);
    case 'G': return push_float(m);
    case 0x8a: return push_long(m);
    case 'c': return push_global(m);
    case 'Q': return push_storage(m);
    case 'R': return reduce(m);
    case 0x81: return new_object(m);
    case 'b': return build(m);
    case 't': return tuple_from_mark(m);
    case 0x85: return small_tuple(m, 1);
    case 0x86: return small_tuple(m, 2);
    case 0x87: return small_tuple(m, 3);
    case 's': return set_one(m);
    case 'u': return set_items(m);
    case 'a': return append_items(m, m->depth - 1, m->depth - 2);
    case 'e': return appends(m);
    case 'K':
    case 'M':
    case 'J':
    case 'q':
    case 'r':
    case 'h':
    case 'j': return number_opcode(m, op);
    default: break;
    }
    REFUSE("the opcode 0x%02x ('%c') is refused", op, isgraph(op) ? op : '?');
}

/* A total order over both kinds of keys. */
static int by_key(const void *a, const void *b)
{
    const xkd_pickle_node *x = *(const xkd_pickle_node *const *)a, *y = *(const xkd_pickle_node *const *)b;
    if (x->kind != y->kind) return x->kind < y->kind ? -1 : 1;
    if (x->kind == XKD_PICKLE_INT) return (x->as.integer > y->as.integer) - (x->as.integer < y->as.integer);
    int64_t shorter = x->as.text.size < y->as.text.size ? x->as.text.size : y->as.text.size;
    int order = memcmp(x->as.text.data, y->as.text.data, (size_t)shorter);
    return order ? order : (x->as.text.size > y->as.text.size) - (x->as.text.size < y->as.text.size);
}

/* Keys given twice, by sorting: a hostile dict of a million keys must not cost a million squared. */
static xkd_status check_keys(machine *m, const xkd_pickle_node *dict)
{
    xkd_status status = XKD_OK;
    const xkd_pickle_node **keys = NULL;
    int64_t n = dict->as.list.count / 2;
    XKD_TRY(xkd_alloc(m->cx, &keys, n, sizeof *keys));
    for (int64_t i = 0; i < n; i++) keys[i] = node_at(m, dict->as.list.items[2 * i]);
    qsort(keys, (size_t)n, sizeof *keys, by_key);
    for (int64_t i = 1; i < n && status == XKD_OK; i++) {
        if (by_key(&keys[i - 1], &keys[i]) != 0) continue;
        char shown[200];
        const char *text = keys[i]->as.text.data;
        if (keys[i]->kind == XKD_PICKLE_TEXT)
            status = refuse(m, "the key '%s' is given twice",
                            xkd_escape(shown, sizeof shown, text, (size_t)keys[i]->as.text.size, ""));
        else
            status = refuse(m, "the key %" PRId64 " is given twice", keys[i]->as.integer);
    }
fail:
    xkd_free(keys);
    return status;
}

/* The root is what STOP leaves: exactly one value, and nothing behind it unless the caller reads on.
 * Keys are checked at the end, when dicts are complete. */
static xkd_status finish(machine *m, int64_t *used)
{
    if (m->depth != 1 || m->stack[0] == MARK) REFUSE("STOP does not leave exactly one value");
    m->out->root = m->stack[0];
    const xkd_pickle_node *root = node_at(m, m->out->root);
    char name[160]; /* of a file that holds nothing else nothing is left */
    if (root->kind == XKD_PICKLE_OPAQUE) {
        xkd_pickle_opaque_name(root, name, sizeof name);
        REFUSE("nothing but %s", name);
    }
    for (int64_t i = 0; i < m->out->count; i++) {
        xkd_status status = XKD_OK;
        if (m->out->nodes[i].kind == XKD_PICKLE_DICT) status = check_keys(m, &m->out->nodes[i]);
        if (status != XKD_OK) return status;
    }
    if (used)
        *used = m->at;
    else if (m->at != m->size)
        REFUSE("%" PRId64 " bytes behind its end", m->size - m->at);
    return XKD_OK;
}

/* With `used` the pickle may be followed by other data, as in the older format. On failure the caller
 * frees `out`. */
xkd_status xkd_pickle_read(xkd_context *cx, const char *path, const unsigned char *data, int64_t size, int64_t *used,
                           xkd_pickle *out)
{
    xkd_status status = XKD_OK;
    machine state = {.cx = cx, .path = path, .data = data, .size = size, .out = out}, *m = &state;
    *out = (xkd_pickle){0};
    for (;;) {
        const unsigned char *op = NULL;
        m->opcode_at = m->at;
        XKD_TRY(take(m, 1, &op));
        /* Protocols 0 and 1 have no such start and are not written by PyTorch. */
        if (m->opcode_at == 0 && *op != 0x80) {
            status = refuse(m, "it does not begin with PROTO");
            goto fail;
        }
        if (*op == '.') break;
        XKD_TRY(step(m, *op));
    }
    XKD_TRY(finish(m, used));
fail:
    xkd_free(m->stack);
    xkd_free(m->memo);
    return status;
}

/* Only containers own memory. */
void xkd_pickle_free(xkd_pickle *p)
{
    for (int64_t i = 0; i < p->count; i++) {
        xkd_pickle_kind kind = p->nodes[i].kind;
        if (kind == XKD_PICKLE_TUPLE || kind == XKD_PICKLE_LIST || kind == XKD_PICKLE_DICT)
            xkd_free(p->nodes[i].as.list.items);
    }
    xkd_free(p->nodes);
    xkd_free(p->tensors);
    *p = (xkd_pickle){0};
}
