/* main.c - ballast-trace: imports, exports, describes and makes up traces. */
#include "traces/commands.h"

int main(int argc, char **argv) {
  const bl_command commands[] = {bl_command_import(), bl_command_export(), bl_command_info(), bl_command_stats(),
                                 bl_command_gen()};
  return bl_program_main("ballast-trace", "expert-selection traces of MoE training", commands,
                         (int)(sizeof commands / sizeof *commands), argc, argv);
}
