/* The YAML reader: PyYAML's scalars, line numbers, and everything a configuration must not contain. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <math.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/text.h"
#include "config/yaml.h"

static int setup(void **state)
{
    *state = xkd_context_new();
    return *state == NULL;
}

static int teardown(void **state)
{
    xkd_context_free(*state);
    return 0;
}

static xkd_yaml_node *parse(xkd_context *cx, const char *text)
{
    xkd_yaml_node *root;
    if (xkd_yaml_parse(cx, "t", text, (int64_t)strlen(text), false, &root) != XKD_OK)
        fail_msg("%s: %s", text, xkd_last_error(cx));
    return root;
}

static void test_tree(void **state)
{
    xkd_yaml_node *root = parse(*state, "a: 1\nb:\n  c: [x, 'y', \"z\"]\n  d: {e: 2}\n# end\n");
    const xkd_yaml_node *b = xkd_yaml_get(root, "b"), *c = xkd_yaml_get(b, "c");
    assert_int_equal(root->count, 2);
    assert_int_equal(c->count, 3);
    assert_int_equal(c->line, 3);
    assert_true(c->child->plain);
    assert_false(c->child->next->plain);
    assert_string_equal(c->child->next->next->text, "z");
    assert_int_equal(xkd_yaml_get(b, "d")->line, 4);
    assert_null(xkd_yaml_get(root, "zz"));
    xkd_yaml_free(root);
    root = parse(*state, "# nothing\n");
    assert_int_equal(root->count, 0);
    xkd_yaml_free(root);
}

static void test_numbers(void **state)
{
    static const struct {
        const char *text;
        bool is_int, is_real;
        double value;
    } cases[] = {
        {"3", true, true, 3},
        {"-17", true, true, -17},
        {"+4", true, true, 4},
        {"010", true, true, 8},
        {"0x1F", true, true, 31},
        {"0b101", true, true, 5},
        {"1_000", true, true, 1000},
        {"190:20:30", true, true, 685230},
        {"16000.", true, true, 16000},
        {"0.85", false, true, 0.85},
        {"1e-6", false, true, 1e-6},
        {"1.5e+3", true, true, 1500},
        {".5", false, true, 0.5},
        {"1.", true, true, 1},
        {"-.inf", false, true, -INFINITY},
        {"inf", false, false, 0},
        {"0x1p3", false, false, 0},
        {"1 2", false, false, 0},
        {"'3'", false, false, 0},
        {"1e", false, false, 0},
        {"--", false, false, 0},
        {"abc", false, false, 0},
        {"99999999999999999999", false, true, 1e20},
        {"1:99", false, false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[64];
        int64_t whole = 0;
        double real = 0;
        snprintf(text, sizeof text, "k: %s", cases[i].text);
        xkd_yaml_node *root = parse(*state, text);
        const xkd_yaml_node *node = xkd_yaml_get(root, "k");
        bool is_int = xkd_yaml_int(node, &whole), is_real = xkd_yaml_real(node, &real);
        if (is_int != cases[i].is_int || is_real != cases[i].is_real) fail_msg("%s: %d %d", text, is_int, is_real);
        if (is_int && (double)whole != cases[i].value) fail_msg("%s is %lld", text, (long long)whole);
        if (is_real && real != cases[i].value) fail_msg("%s is %g", text, real);
        xkd_yaml_free(root);
    }
}

static void test_booleans_and_null(void **state)
{
    static const char *const yes[] = {"yes", "True", "ON", "true"}, *const no[] = {"no", "False", "off", "NO"},
                             *const neither[] = {"y", "n", "tRue", "'yes'", "1", "~", "null", ""};
    char text[32];
    bool value;
    for (int i = 0; i < 4; i++)
        for (int side = 0; side < 2; side++) {
            snprintf(text, sizeof text, "k: %s", side ? yes[i] : no[i]);
            xkd_yaml_node *root = parse(*state, text);
            assert_true(xkd_yaml_bool(root->child, &value));
            assert_int_equal(value, side);
            xkd_yaml_free(root);
        }
    for (int i = 0; i < 8; i++) {
        snprintf(text, sizeof text, "k: %s", neither[i]);
        xkd_yaml_node *root = parse(*state, text);
        assert_false(xkd_yaml_bool(root->child, &value));
        assert_int_equal(xkd_yaml_is_null(root->child), i >= 5);
        xkd_yaml_free(root);
    }
}

static void refused(xkd_context *cx, const char *text, bool strict, const char *message)
{
    xkd_yaml_node *root;
    xkd_clear_error(cx);
    assert_int_equal(xkd_yaml_parse(cx, "t", text, (int64_t)strlen(text), strict, &root), XKD_ERR_CONFIG);
    assert_null(root);
    if (!strstr(xkd_last_error(cx), message)) fail_msg("'%s' gave: %s", text, xkd_last_error(cx));
}

static void test_what_is_refused(void **state)
{
    xkd_context *cx = *state;
    refused(cx, "a: &x 1\n", false, "t:1: anchors");
    refused(cx, "a: 1\nb: *x\n", false, "t:2: aliases");
    refused(cx, "a: &x [1]\n", false, "anchors");
    refused(cx, "a: !!python/object/apply:os.system ['ls']\n", false, "t:1: tags");
    refused(cx, "a: !t 1\n", false, "tags");
    refused(cx, "a: 1\n---\nb: 2\n", false, "second document");
    refused(cx, "a: [1, 2\n", false, "not YAML");
    refused(cx, "a: 1\n\tb: 2\n", false, "t:2: not YAML");
    refused(cx, "? [a, b]\n: 1\n", false, "a key must be a word");
    refused(cx, "a: \"x\\0y\"\n", false, "0 byte");
    refused(cx, "a: \xff\xfe\n", false, "not YAML");
    refused(cx, "a: 1\nb: 2\na: 3\n", true, "t:3: key 'a' was given before, at line 1");
}

static void count_warnings(void *user, xkd_log_level level, const char *line)
{
    if (level == XKD_LOG_WARN && strstr(line, "t:3: key 'a'")) ++*(int *)user;
}

static void test_last_of_equal_keys_counts(void **state)
{
    int warnings = 0;
    int64_t value = 0;
    xkd_context_set_log(*state, count_warnings, &warnings, XKD_LOG_DEBUG);
    xkd_yaml_node *root = parse(*state, "a: 1\nb: 2\na: 3\nc: 4\nc: 5\n");
    assert_int_equal(warnings, 1);
    assert_int_equal(root->count, 3);
    assert_true(xkd_yaml_int(xkd_yaml_get(root, "a"), &value));
    assert_int_equal(value, 3);
    assert_true(xkd_yaml_int(xkd_yaml_get(root, "c"), &value));
    assert_int_equal(value, 5);
    xkd_yaml_free(root);
    xkd_context_set_log(*state, NULL, NULL, XKD_LOG_ERROR);
}

static void test_limits(void **state)
{
    xkd_context *cx = *state;
    xkd_text text = xkd_text_make(cx);
    for (int i = 0; i < 65; i++) xkd_text_puts(&text, "[");
    refused(cx, text.data, false, "nested deeper than 64");
    xkd_text_clear(&text);
    xkd_text_puts(&text, "a: [");
    for (int i = 0; i < 20001; i++) xkd_text_puts(&text, "1,");
    refused(cx, text.data, false, "more than 20000 values");
    xkd_text_clear(&text);
    for (int i = 0; i <= 1 << 20; i++) xkd_text_puts(&text, "#");
    refused(cx, text.data, false, "larger than");
    xkd_text_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_booleans_and_null),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_last_of_equal_keys_counts),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests_name("yaml", tests, setup, teardown);
}
