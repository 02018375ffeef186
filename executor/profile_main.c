/* profile_main.c - ballast-profile: measures this machine for one model and writes a profile. */
#include "base/file.h"
#include "base/options.h"
#include "base/table.h"
#include "executor/profile.h"
#include <stdio.h>

typedef struct arguments {
  const char *backend, *precision, *expert_gemm, *clock, *model, *output;
  int64_t ranks, samples, rows, matrix;
} arguments;

static bl_status print_table(const bl_profile *p) {
  bl_table *table;
  BL_TRY(bl_table_create("<work|<per|points|smallest|us|largest|us|held-out error %", &table));
  for (int k = 0; k < BL_CURVE_COUNT; k++) {
    const bl_curve *c = &p->curves[k];
    if (c->n == 0) continue;
    bl_table_cell(table, "%s", bl_curve_names[k]);
    bl_table_cell(table, "%s", bl_curve_units[k]);
    bl_table_cell(table, "%d", c->n);
    bl_table_cell(table, "%.0f", c->x[0]);
    bl_table_cell(table, "%.1f", c->us[0]);
    bl_table_cell(table, "%.0f", c->x[c->n - 1]);
    bl_table_cell(table, "%.1f", c->us[c->n - 1]);
    bl_table_cell(table, "%.1f", 100 * bl_curve_held_out_error(c));
  }
  bl_table_print(table, stdout);
  bl_table_free(table);
  if (p->one_device) printf("\nranks share one device: what goes between them are copies in its own memory\n");
  printf("\nwhile %d ranks run, each on %s: sgemm %.1f GFLOP/s, triad %.1f GB/s\n", p->ranks, p->device,
         p->sgemm_gflops, p->triad_gbps);
  return BL_OK;
}

/* A line for few and for many rows, with the way that took least. */
static void print_ways(const bl_profile_ways *w) {
  for (int at = 0; at < 2 && w->n > 0; at++) {
    int best = 0;
    printf("--expert-gemm with %d experts of %lld rows, us an expert:", w->experts, (long long)w->rows[at]);
    for (int i = 0; i < w->n; i++) {
      printf(" %s %.1f%s", w->name[i], w->us[i][at], i + 1 < w->n ? "," : "");
      if (w->us[i][at] < w->us[best][at]) best = i;
    }
    printf("; %s wins\n", w->name[best]);
  }
}

static bl_status run(void *context) {
  const arguments *a = context;
  bl_model model;
  bl_profile profile;
  bl_profile_ways ways;
  const char *const inputs[] = {a->model};
  BL_TRY(bl_output_check(a->output, inputs, 1));
  bl_model_default(&model);
  if (a->model) BL_TRY(bl_model_load(a->model, &model));
  const bl_profile_options options = {.model = &model,
                                      .backend = a->backend,
                                      .precision = a->precision,
                                      .expert_gemm = a->expert_gemm,
                                      .ranks = (int32_t)a->ranks,
                                      .samples = (int32_t)a->samples,
                                      .rows = (int32_t)a->rows,
                                      .matrix = (int32_t)a->matrix,
                                      .cpu_clock = a->clock[0] == 'c'};
  BL_TRY(bl_profile_measure(&options, &profile, &ways));
  BL_TRY(bl_profile_save(a->output, &profile));
  BL_TRY(print_table(&profile));
  print_ways(&ways);
  return BL_OK;
}

int main(int argc, char **argv) {
  arguments a = {
      .backend = "cpu", .precision = "auto", .expert_gemm = "loop", .clock = "wall", .ranks = 1, .samples = 11};
  const bl_option options[] = {
      {.name = "backend",
       .type = BL_OPTION_CHOICE,
       .target = &a.backend,
       .metavar = "cpu|cuda",
       .help = "what computes",
       .choices = "cpu|cuda"},
      {.name = "precision",
       .type = BL_OPTION_CHOICE,
       .target = &a.precision,
       .metavar = "TYPE",
       .help = "auto: fp32 on cpu, bf16 with fp32 master weights on cuda",
       .choices = "auto|fp32|bf16"},
      {.name = "expert-gemm",
       .type = BL_OPTION_CHOICE,
       .target = &a.expert_gemm,
       .metavar = "WAY",
       .help = "products of experts on cuda: loop, one after another; streams, side by side; grouped, in one call; "
               "all are timed, the curves are of this one",
       .choices = BL_EXPERT_GEMMS},
      {.name = "ranks",
       .type = BL_OPTION_INT,
       .target = &a.ranks,
       .metavar = "P",
       .help = "ranks that work at once, as they will in training",
       .min = 1,
       .max = 64},
      {.name = "model",
       .type = BL_OPTION_STRING,
       .target = &a.model,
       .metavar = "FILE",
       .help = "model whose shapes are measured (JSON); without it the small model"},
      {.name = "samples",
       .type = BL_OPTION_INT,
       .target = &a.samples,
       .metavar = "N",
       .help = "timed calls a point, of which the median counts",
       .min = 1,
       .max = 101},
      {.name = "rows",
       .type = BL_OPTION_INT,
       .target = &a.rows,
       .metavar = "N",
       .help = "most rows of one expert in a call; 0: 1024 on cpu, 8192 on cuda",
       .min = 0,
       .max = 16384},
      {.name = "matrix",
       .type = BL_OPTION_INT,
       .target = &a.matrix,
       .metavar = "N",
       .help = "width of the square matrix product that gives the rate; 0: 1024 on cpu, 8192 on cuda",
       .min = 0,
       .max = 32768},
      {.name = "clock",
       .type = BL_OPTION_CHOICE,
       .target = &a.clock,
       .metavar = "NAME",
       .help = "cpu: a rank's own work by its thread's processor time, where other programs disturb the wall clock",
       .choices = "wall|cpu"},
      {.name = "output|o",
       .type = BL_OPTION_STRING,
       .target = &a.output,
       .metavar = "FILE",
       .help = "profile to write (JSON)",
       .required = true},
  };
  const bl_command command = {
      .name = "ballast-profile",
      .summary = "measures what each kind of work of a model takes on this machine",
      .description =
          "Every kind of work is timed over a range of amounts with the backend and the transport of training, "
          "all ranks at once. The held-out error of a curve is how far its inner points lie from the line "
          "between their neighbours.",
      .example = "ballast-profile --ranks 2 --output profile.json",
      .options = options,
      .n_options = sizeof options / sizeof *options,
      .run = run,
      .context = &a};
  return bl_program_main("ballast-profile", command.summary, &command, 1, argc, argv);
}
