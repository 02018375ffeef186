/* main.c - ballast-plan: plans from traces, replays of policies over traces, and what a plan says. */
#include "planner/commands.h"

int main(int argc, char **argv) {
  const bl_command commands[] = {bl_command_place(),    bl_command_replay(),   bl_command_search(),
                                 bl_command_simulate(), bl_command_estimate(), bl_command_fit(),
                                 bl_command_check(),    bl_command_explain(),  bl_command_export()};
  return bl_program_main("ballast-plan", "plans and policies for MoE training", commands,
                         (int)(sizeof commands / sizeof *commands), argc, argv);
}
