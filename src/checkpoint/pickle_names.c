/* The tables of names that a pickle may hold, and looking things up in what was read. */
#include "checkpoint/pickle_names.h"

#include <stdio.h>
#include <string.h>

#include "checkpoint/pickle.h"

/* Everything a pickle may name. */
static const xkd_pickle_global globals[] = {
    {"collections", "OrderedDict", XKD_PICKLE_ORDERED_DICT, 0},
    {"torch._utils", "_rebuild_tensor_v2", XKD_PICKLE_REBUILD_V2, 0},
    {"torch._utils", "_rebuild_tensor", XKD_PICKLE_REBUILD, 0},
    /* A parameter is its tensor; the flags around it are dropped. */
    {"torch._utils", "_rebuild_parameter", XKD_PICKLE_PARAMETER, 0},
    {"torch._utils", "_rebuild_parameter_with_state", XKD_PICKLE_PARAMETER, 0},
    {"torch", "FloatStorage", XKD_PICKLE_STORAGE_TYPE, XKD_F32},
    {"torch", "DoubleStorage", XKD_PICKLE_STORAGE_TYPE, XKD_F64},
    {"torch", "HalfStorage", XKD_PICKLE_STORAGE_TYPE, XKD_F16},
    {"torch", "BFloat16Storage", XKD_PICKLE_STORAGE_TYPE, XKD_BF16},
    {"torch", "LongStorage", XKD_PICKLE_STORAGE_TYPE, XKD_I64},
    {"torch", "IntStorage", XKD_PICKLE_STORAGE_TYPE, XKD_I32},
    {"torch", "ShortStorage", XKD_PICKLE_STORAGE_TYPE, XKD_I16},
    {"torch", "CharStorage", XKD_PICKLE_STORAGE_TYPE, XKD_I8},
    {"torch", "ByteStorage", XKD_PICKLE_STORAGE_TYPE, XKD_U8},
    {"torch", "BoolStorage", XKD_PICKLE_STORAGE_TYPE, XKD_BOOL},
    {"torch", "float32", XKD_PICKLE_DTYPE, XKD_F32},
    {"torch", "float64", XKD_PICKLE_DTYPE, XKD_F64},
    {"torch", "float16", XKD_PICKLE_DTYPE, XKD_F16},
    {"torch", "bfloat16", XKD_PICKLE_DTYPE, XKD_BF16},
    {"torch", "int64", XKD_PICKLE_DTYPE, XKD_I64},
    {"torch", "int32", XKD_PICKLE_DTYPE, XKD_I32},
    {"torch", "int16", XKD_PICKLE_DTYPE, XKD_I16},
    {"torch", "int8", XKD_PICKLE_DTYPE, XKD_I8},
    {"torch", "uint8", XKD_PICKLE_DTYPE, XKD_U8},
    {"torch", "bool", XKD_PICKLE_DTYPE, XKD_BOOL},
    {"torch", "Size", XKD_PICKLE_SIZE, 0},
    {"torch", "device", XKD_PICKLE_DEVICE, 0},
};
enum { GLOBALS = sizeof globals / sizeof *globals };

/* Classes and functions whose objects stand beside the weights in people's checkpoints. They become opaque nodes: nothing is
 * looked up, called or built, their arguments, state and items are dropped, and no tensor, storage or key may come of them.
 * A name is on this list only if that is all the use that a reader of weights has for it. */
static const struct {
    const char *module, *name;
} inert[] = {
    {"argparse", "Namespace"},
    {"types", "SimpleNamespace"},
    {"collections", "defaultdict"},
    {"collections", "deque"},
    {"collections", "Counter"},
    /* Protocol 2 says __builtin__ for builtins. */
    {"__builtin__", "dict"},
    {"__builtin__", "list"},
    {"__builtin__", "tuple"},
    {"__builtin__", "set"},
    {"__builtin__", "frozenset"},
    {"__builtin__", "int"},
    {"__builtin__", "long"},
    {"__builtin__", "float"},
    {"__builtin__", "complex"},
    {"__builtin__", "bool"},
    {"__builtin__", "str"},
    {"__builtin__", "unicode"},
    {"__builtin__", "bytes"},
    {"__builtin__", "bytearray"},
    {"__builtin__", "object"},
    {"__builtin__", "slice"},
    {"__builtin__", "xrange"},
    {"__builtin__", "Ellipsis"},
    {"builtins", "dict"},
    {"builtins", "list"},
    {"builtins", "tuple"},
    {"builtins", "set"},
    {"builtins", "frozenset"},
    {"builtins", "int"},
    {"builtins", "float"},
    {"builtins", "complex"},
    {"builtins", "bool"},
    {"builtins", "str"},
    {"builtins", "bytes"},
    {"builtins", "bytearray"},
    {"builtins", "object"},
    {"builtins", "slice"},
    {"builtins", "range"},
    {"builtins", "Ellipsis"},
    {"copy_reg", "_reconstructor"},
    {"copyreg", "_reconstructor"},
    /* How protocol 2 writes bytes. */
    {"_codecs", "encode"},
    {"pathlib", "Path"},
    {"pathlib", "PosixPath"},
    {"pathlib", "WindowsPath"},
    {"pathlib", "PurePath"},
    {"pathlib", "PurePosixPath"},
    {"pathlib", "PureWindowsPath"},
    {"pathlib._local", "Path"},
    {"pathlib._local", "PosixPath"},
    {"pathlib._local", "WindowsPath"},
    {"pathlib._local", "PurePosixPath"},
    {"datetime", "datetime"},
    {"datetime", "date"},
    {"datetime", "time"},
    {"datetime", "timedelta"},
    {"datetime", "timezone"},
    {"decimal", "Decimal"},
    {"fractions", "Fraction"},
    {"uuid", "UUID"},
    {"typing", "Any"},
    {"numpy", "dtype"},
    {"numpy", "ndarray"},
    {"numpy", "float64"},
    {"numpy", "float32"},
    {"numpy", "int64"},
    {"numpy", "int32"},
    {"numpy", "bool_"},
    {"numpy", "bool"},
    {"numpy", "float16"},
    {"numpy", "int16"},
    {"numpy", "int8"},
    {"numpy", "uint8"},
    {"numpy", "uint16"},
    {"numpy", "uint32"},
    {"numpy", "uint64"},
    {"numpy", "str_"},
    {"numpy.dtypes", "Float64DType"},
    {"numpy.dtypes", "Float32DType"},
    {"numpy.dtypes", "Int64DType"},
    {"numpy.dtypes", "Float16DType"},
    {"numpy.dtypes", "Int32DType"},
    {"numpy.dtypes", "UInt8DType"},
    {"numpy.dtypes", "BoolDType"},
    {"numpy.core.multiarray", "scalar"},
    {"numpy.core.multiarray", "_reconstruct"},
    {"numpy._core.multiarray", "scalar"},
    {"numpy._core.multiarray", "_reconstruct"},
    {"numpy.core.numeric", "_frombuffer"},
    {"numpy._core.numeric", "_frombuffer"},
    {"torch.torch_version", "TorchVersion"},
    {"torch.serialization", "_get_layout"},
    /* Containers of settings. */
    {"easydict", "EasyDict"},
    {"addict.addict", "Dict"},
    {"yacs.config", "CfgNode"},
    {"fvcore.common.config", "CfgNode"},
    {"mmcv.utils.config", "ConfigDict"},
    {"mmengine.config.config", "ConfigDict"},
    {"pytorch_lightning.utilities.parsing", "AttributeDict"},
    {"lightning.fabric.utilities.data", "AttributeDict"},
    {"lightning_fabric.utilities.data", "AttributeDict"},
    {"lightning.pytorch.utilities.parsing", "AttributeDict"},
    {"omegaconf.dictconfig", "DictConfig"},
    {"omegaconf.listconfig", "ListConfig"},
    {"omegaconf.base", "ContainerMetadata"},
    {"omegaconf.base", "Metadata"},
    {"omegaconf.nodes", "AnyNode"},
    {"omegaconf.nodes", "StringNode"},
    {"omegaconf.nodes", "IntegerNode"},
    {"omegaconf.nodes", "FloatNode"},
    {"omegaconf.nodes", "BooleanNode"},
};
enum { INERT = sizeof inert / sizeof *inert };
_Static_assert((int)INERT <= (int)XKD_PICKLE_WIDE, "numbers of names and that of wide integers differ");

int xkd_pickle_find_global(const char *module, const char *name)
{
    for (int i = 0; i < GLOBALS; i++)
        if (strcmp(module, globals[i].module) == 0 && strcmp(name, globals[i].name) == 0) return i;
    return -1;
}

const xkd_pickle_global *xkd_pickle_global_at(int number)
{
    return &globals[number];
}

int xkd_pickle_find_inert(const char *module, const char *name)
{
    for (int i = 0; i < INERT; i++)
        if (strcmp(module, inert[i].module) == 0 && strcmp(name, inert[i].name) == 0) return i;
    return -1;
}

void xkd_pickle_inert_name(int number, char *out, size_t size)
{
    if (number == XKD_PICKLE_WIDE)
        snprintf(out, size, "an integer of more than 64 bits");
    else
        snprintf(out, size, "%s.%s", inert[number].module, inert[number].name);
}

void xkd_pickle_opaque_name(const xkd_pickle_node *node, char *out, size_t size)
{
    xkd_pickle_inert_name(node->as.global, out, size);
}

/* Exact; texts in the file have no terminating 0. */
bool xkd_pickle_is(const xkd_pickle *p, int64_t node, const char *text)
{
    const xkd_pickle_node *n = &p->nodes[node];
    size_t length = strlen(text);
    return n->kind == XKD_PICKLE_TEXT && n->as.text.size == (int64_t)length &&
           memcmp(n->as.text.data, text, length) == 0;
}

/* A linear search: used for a few known keys. */
int64_t xkd_pickle_get(const xkd_pickle *p, int64_t dict, const char *key)
{
    const xkd_pickle_node *d = &p->nodes[dict];
    if (d->kind != XKD_PICKLE_DICT) return -1;
    for (int64_t i = 0; i < d->as.list.count; i += 2)
        if (xkd_pickle_is(p, d->as.list.items[i], key)) return d->as.list.items[i + 1];
    return -1;
}
