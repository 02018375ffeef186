/* Cluster files: what was saved is what was loaded; what is wrong with one is said in one sentence. */
#include "costmodel/cluster.h"
#include "tests/check.h"
#include <unistd.h>

static char path[64];

static bl_status load(const char *text, bl_cluster *out) { return bl_cluster_parse("c.json", text, strlen(text), out); }

/* A type changes the rate of products alone; unknown ones are named. */
static void test_even(void) {
  static bl_cluster c, back;
  REQUIRE_OK(bl_cluster_load("costmodel/clusters/h100-hgx.json", &c));
  const bl_device *d = &c.node_group[0].device;
  CHECK_INT(c.n_node_groups, 1);
  CHECK_NEAR(c.node_group[0].links.intra.gbps, 450 * 0.8, 1e-9);
  CHECK_NEAR(bl_device_rate(d), 989e6 * d->efficiency, 1);
  REQUIRE_OK(bl_cluster_save(path, &c));
  REQUIRE_OK(bl_cluster_load(path, &back));
  CHECK(memcmp(&c, &back, sizeof c) == 0);
  CHECK_OK(bl_cluster_use_type(&c, "fp8"));
  CHECK_NEAR(bl_device_rate(d), 1979e6 * d->types[0].efficiency, 1);
  CHECK_NEAR(bl_device_core_rate(d), 989e6 * d->efficiency, 1);
  CHECK_FAILS(bl_cluster_use_type(&c, "fp3"), BL_EINPUT, "(fp8), found fp3");
  CHECK_OK(bl_cluster_use_type(&c, NULL));
  CHECK_NEAR(bl_device_rate(d), 989e6 * d->efficiency, 1);
  unlink(path);
}

#define DEVICE(name, num_bytes)                                                                                \
  "{\"name\":\"" name "\",\"tflops\":10,\"num_bytes\":" num_bytes ",\"memory_bytes\":1e9,\"memory_gbps\":100," \
  "\"efficiency\":0.5,\"call_us\":1,\"source\":\"\",\"types\":[{\"name\":\"" name "8\",\"tflops\":20,"         \
  "\"efficiency\":0.4,\"source\":\"\"}]}"
#define LINK(gbps) "{\"gbps\":" gbps ",\"latency_us\":1,\"source\":\"\"}"
#define RACKS ",\"racks\":{\"nodes\":2,\"gbps\":1,\"latency_us\":9,\"efficiency\":0.5,\"source\":\"\"}"
#define FILE_OF(nodes, racks)                  \
  "{\"version\":1,\"name\":\"made up\"," nodes \
  ",\"device\":" DEVICE("new", "2") ",\"links\":{\"intra\":" LINK("20") ",\"inter\":" LINK("2") racks "}}"
#define GROUPS                                                                                                 \
  "\"node_groups\":[{\"nodes\":3,\"ranks_per_node\":8},{\"nodes\":1,\"ranks_per_node\":6,\"device\":" DEVICE(  \
      "old",                                                                                                   \
      "2") ",\"links\":{\"inter\":" LINK("1") "}},{\"nodes\":2,\"ranks_per_node\":8,\"device\":" DEVICE("old", \
                                                                                                        "2") "}]"

/* A group without device or links has the file's; types must be known to all devices. */
static void test_groups(void) {
  static bl_cluster c, back;
  REQUIRE_OK(load(FILE_OF(GROUPS, RACKS), &c));
  CHECK_INT(c.n_node_groups, 3);
  CHECK_INT(bl_cluster_ranks(&c), 3 * 8 + 6 + 2 * 8);
  CHECK_INT(bl_cluster_widest_node(&c), 8);
  CHECK_INT(bl_cluster_narrowest_node(&c), 6);
  CHECK(strcmp(c.node_group[0].device.name, "new") == 0 && strcmp(c.node_group[1].device.name, "old") == 0);
  CHECK(c.node_group[0].links.inter.gbps == 2 && c.node_group[1].links.inter.gbps == 1);
  CHECK(c.node_group[1].links.intra.gbps == 20 && c.node_group[2].links.inter.gbps == 2);
  CHECK(c.racks.nodes == 2 && c.racks.link.gbps == 0.5 && c.racks.link.latency_us == 9);
  REQUIRE_OK(bl_cluster_save(path, &c));
  REQUIRE_OK(bl_cluster_load(path, &back));
  CHECK(memcmp(&c, &back, sizeof c) == 0);
  unlink(path);
  CHECK_FAILS(bl_cluster_use_type(&c, "new8"), BL_EINPUT,
              "device old: expected one of its device.types (old8), found new8");
  REQUIRE_OK(load(FILE_OF("\"nodes\":4,\"ranks_per_node\":4", ""), &c));
  CHECK_INT(c.racks.nodes, 0);
}

static void test_sentences(void) {
  static bl_cluster c;
  static const struct {
    const char *text, *expected;
  } bad[] = {
      {FILE_OF("\"nodes\":1", ""), "c.json: top level: expected the key \"ranks_per_node\", found none"},
      {FILE_OF("\"ranks_per_node\":1", ""), "c.json: top level: expected the key \"nodes\", found none"},
      {FILE_OF("\"nodes\":0,\"ranks_per_node\":8", ""), "c.json: nodes: expected"},
      {FILE_OF("\"nodes\":1,\"ranks_per_node\":8,\"speed\":3", ""),
       "c.json: top level: expected only the keys version name nodes ranks_per_node ranks_per_card node_groups device "
       "links, found \"speed\""},
      {FILE_OF("\"nodes\":1,\"ranks_per_node\":8,\"ranks_per_card\":9", ""), "c.json: ranks_per_card: expected"},
      {FILE_OF(GROUPS ",\"nodes\":1", ""),
       "c.json: top level: expected nodes and ranks_per_node, or node_groups, found both"},
      {FILE_OF(GROUPS ",\"ranks_per_node\":1", ""), "or node_groups, found both"},
      {FILE_OF("\"node_groups\":[]", ""), "c.json: node_groups: expected"},
      {FILE_OF("\"node_groups\":{}", ""), "c.json: node_groups: expected"},
      {FILE_OF("\"node_groups\":[1]", ""), "c.json: node_groups[0]: expected"},
      {FILE_OF("\"node_groups\":[{\"nodes\":1}]", ""),
       "c.json: node_groups[0]: expected the key \"ranks_per_node\", found none"},
      {FILE_OF("\"node_groups\":[{\"nodes\":-1,\"ranks_per_node\":8}]", ""), "c.json: node_groups[0].nodes: expected"},
      {FILE_OF("\"node_groups\":[{\"nodes\":1,\"ranks_per_node\":1025}]", ""),
       "c.json: node_groups[0].ranks_per_node: expected"},
      {FILE_OF("\"node_groups\":[{\"nodes\":1,\"ranks_per_node\":8,\"gpus\":1}]", ""),
       "c.json: node_groups[0]: expected only the keys nodes ranks_per_node device links, found \"gpus\""},
      {FILE_OF("\"node_groups\":[{\"nodes\":1,\"ranks_per_node\":8,\"device\":{}}]", ""),
       "c.json: node_groups[0].device: expected the key \"name\", found none"},
      {FILE_OF("\"node_groups\":[{\"nodes\":1,\"ranks_per_node\":8,\"device\":" DEVICE("x", "4") "}]", ""),
       "c.json: node_groups[0].device.num_bytes: expected 2, as of the file's device, found 4"},
      {FILE_OF("\"node_groups\":[{\"nodes\":1,\"ranks_per_node\":8,\"links\":{\"intra\":" LINK("0") "}}]", ""),
       "c.json: node_groups[0].links.intra.gbps: expected"},
      {FILE_OF("\"node_groups\":[{\"nodes\":1,\"ranks_per_node\":8,\"links\":{\"racks\":{}}}]", ""),
       "c.json: node_groups[0].links: expected only the keys intra inter, found \"racks\""},
      {FILE_OF("\"node_groups\":[{\"nodes\":1048576,\"ranks_per_node\":1024},{\"nodes\":1,\"ranks_per_node\":1}]", ""),
       "c.json: node_groups: expected at most 1073741824 ranks in all, found 1073741825"},
      {FILE_OF(GROUPS ",\"ranks_per_card\":4", ""),
       "c.json: ranks_per_card: expected a divisor of every node's ranks, found 4, and 6 in node_groups[1]"},
      {FILE_OF(GROUPS, ",\"racks\":{\"gbps\":1,\"latency_us\":9,\"source\":\"\"}"),
       "c.json: links.racks: expected the key \"nodes\", found none"},
      {FILE_OF(GROUPS, ",\"racks\":{\"nodes\":0,\"gbps\":1,\"latency_us\":9,\"source\":\"\"}"),
       "c.json: links.racks.nodes: expected"},
      {FILE_OF(GROUPS, ",\"racks\":{\"nodes\":2,\"gbps\":0,\"latency_us\":9,\"source\":\"\"}"),
       "c.json: links.racks.gbps: expected"},
      {FILE_OF(GROUPS, ",\"racks\":{\"nodes\":2,\"uplink\":1,\"gbps\":1,\"latency_us\":9,\"source\":\"\"}"),
       "c.json: links.racks: expected only the keys nodes gbps efficiency latency_us source, found \"uplink\""},
      {FILE_OF(GROUPS, ",\"racks\":4"), "c.json: links.racks: expected"},
      {FILE_OF(GROUPS, ",\"inter\":" LINK("3")), "inter"},
      {FILE_OF(GROUPS, ",\"outer\":" LINK("3")),
       "c.json: links: expected only the keys intra inter racks, found \"outer\""},
      {"{\"version\":1,\"name\":\"x\"," GROUPS ",\"device\":" DEVICE("x", "2") ",\"links\":{\"intra\":" LINK("1") "}}",
       "c.json: links: expected the key \"inter\", found none"},
      {"{\"version\":1,\"name\":\"x\"," GROUPS ",\"links\":{}}",
       "c.json: top level: expected the key \"device\", found none"},
      {"{\"version\":1,\"name\":\"x\",\"nodes\":1,\"ranks_per_node\":8,\"device\":" DEVICE(
           "x", "2") ",\"links\":{\"intra\":{\"gbps\":1,\"efficiency\":1.5,\"latency_us\":1,\"source\":\"\"}}}",
       "c.json: links.intra.efficiency: expected"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK_FAILS(load(bad[i].text, &c), BL_EINPUT, bad[i].expected);
    CHECK(strchr(bl_error_text(), '\n') == NULL);
  }
  /* More groups than there is room for. */
  static char many[4096] = "{\"version\":1,\"name\":\"x\",\"node_groups\":[";
  for (int i = 0; i < 33; i++)
    strcat(many, i ? ",{\"nodes\":1,\"ranks_per_node\":1}" : "{\"nodes\":1,\"ranks_per_node\":1}");
  strcat(many, "],\"device\":" DEVICE("x", "2") ",\"links\":{\"intra\":" LINK("1") ",\"inter\":" LINK("1") "}}");
  CHECK_FAILS(load(many, &c), BL_EINPUT, "c.json: node_groups: expected");
}

int main(void) {
  snprintf(path, sizeof path, "/tmp/ballast_test_cluster.%ld.json", (long)getpid());
  RUN(test_even);
  RUN(test_groups);
  RUN(test_sentences);
  TEST_MAIN_END;
}
