"""The guards that `tests/attack/test_guards.py` takes out, one at a time."""

from typing import NamedTuple


class Guard(NamedTuple):
    """`code` stands once in `file`; with `instead` in its place, `test` fails."""

    promise: str
    file: str
    code: str
    instead: str
    test: str


GUARDS: tuple[Guard, ...] = (
    Guard(
        "options that a function does not know",
        "tl_reward/errors.py",
        "        if name not in known:",
        "        if False:",
        "tests/model/test_inputs.py::test_options_that_loading_does_not_know_are_refused",
    ),
    Guard(
        "types and ranges of arguments",
        "tl_reward/arguments.py",
        "problem = next(_problems(label, value, hint), None)",
        "problem = None",
        "tests/running/test_options.py::test_a_value_is_refused_also_where_pairs_are_encoded",
    ),
    Guard(
        "pairs are pairs",
        "tl_reward/running/options.py",
        "bound.arguments[name] = _as_pairs(value)",
        "pass",
        "tests/running/test_options.py::test_what_stands_in_the_place_of_pairs",
    ),
    Guard(
        "means of another model's shape",
        "tl_reward/interventions/ablations.py",
        "if units not in (None, activation.shape[2]):",
        "if False:",
        "tests/test_argument_values.py::test_values_of_another_models_shape_are_refused",
    ),
    Guard(
        "supporters support",
        "tl_reward/analyses/tension.py",
        " & NeuronSet.from_mask(found.effect > 0)",
        "",
        "tests/analyses/test_tension.py::test_the_top_holds_supporters_alone",
    ),
    Guard(
        "all models are looked at first",
        "tl_reward/cli/options.py",
        "            check_reward_model(source, base=self.adapter_base)",
        "            pass",
        "tests/cli/test_commands.py::test_all_models_are_looked_at_before_one_is_run",
    ),
    Guard(
        "what is done is kept",
        "tl_reward/cli/options.py",
        "self._keep(recorded)",
        "pass",
        "tests/cli/test_commands.py::test_what_is_done_is_kept",
    ),
    Guard(
        "a prompt is read once",
        "tl_reward/data/pairs.py",
        "    if question and turns[: len(question)] == question and",
        "    if False and",
        "tests/data/test_pairs.py::test_prompt_is_read_once[with a system turn of its own]",
    ),
    Guard(
        "equal sides tie",
        "tl_reward/running/scoring.py",
        "    for i in encoded.equal:",
        "    for i in ():",
        "tests/data/test_encoding.py::test_margin_of_sides_that_are_read_as_equal_is_exactly_zero[None]",
    ),
    Guard(
        "no interval over one prompt",
        "tl_reward/measures/intervals.py",
        "if len(drawn) and n > 1 else",
        "if len(drawn) else",
        "tests/measures/test_scores.py::test_one_prompt_has_no_interval",
    ),
    Guard(
        "a fixed date for templates",
        "tl_reward/data/text.py",
        "if _ASKS not in template:",
        "if True:",
        "tests/data/test_encoding.py::test_today_is_a_fixed_date_for_a_template",
    ),
    Guard(
        "bounded rows",
        "tl_reward/data/readers.py",
        "        if len(line) > MOST_BYTES:",
        "        if False:",
        "tests/attack/test_data.py::test_file[too long.jsonl]",
    ),
    Guard(
        "the limit is the context",
        "tl_reward/running/batches/batching.py",
        '        limit = _default_length(model, options.get("max_memory_gb"), gradients)',
        "        limit = min(1024, context)",
        "tests/analyses/test_reading.py::test_default_limit_is_the_context",
    ),
    Guard(
        "what was left out is said",
        "tl_reward/show/run_tables.py",
        "    _print_notes(results, console)\n",
        "",
        "tests/analyses/test_reading.py::test_table_and_run_say_it",
    ),
    Guard(
        "weights without a place",
        "tl_reward/model/checkpoints/stored.py",
        "    if unknown:",
        "    if False:",
        "tests/attack/test_models.py::test_a_damaged_checkpoint_is_refused_in_a_line_or_right[bias of the head]",
    ),
    Guard(
        "weights that are not finite",
        "tl_reward/model/conversion.py",
        "        if key in table and not is_finite(value):",
        "        if False:",
        "tests/attack/test_models.py::test_a_damaged_checkpoint_is_refused_in_a_line_or_right[NaN]",
    ),
    Guard(
        "no code of a checkpoint runs",
        "tl_reward/model/checkpoints/folders.py",
        "AutoConfig.from_pretrained(folder, trust_remote_code=False)",
        "AutoConfig.from_pretrained(folder)",
        "tests/attack/test_models.py::test_no_code_of_a_checkpoint_runs_whatever_is_answered[config]",
    ),
    Guard(
        "rotary dimensions are even",
        "tl_reward/model/architectures.py",
        "    if rotary_dim < 2 or rotary_dim % 2:",
        "    if False:",
        "tests/model/test_inputs.py::test_an_odd_number_of_rotary_dimensions_is_refused",
    ),
    Guard(
        "the cached base is as it was",
        "tl_reward/model/embedded.py",
        "all(digest_of(folder / name) == digest for name, digest in noted.items())",
        "all((folder / name).exists() for name in noted)",
        "tests/model/test_embedded.py::test_a_base_that_is_not_as_it_was_prepared_is_made_again",
    ),
    Guard(
        "Hugging Face's read-out",
        "tl_reward/data/encoding.py",
        "ids = ids[: max([1, *(i for i, token in enumerate(ids, 1) if token != unread)])]",
        "ids = ids",
        "tests/model/test_inputs.py::test_pairs_are_scored_where_hugging_face_reads_them_packed_or_not",
    ),
    Guard(
        "weights of a changed file",
        "tl_reward/model/origin.py",
        "    if not made_from.files or any(_changed(stamp) for stamp in made_from.files):",
        "    if not made_from.files:",
        "tests/model/test_origin.py::test_a_model_in_memory_is_its_tensors",
    ),
    Guard(
        "no markup in figures",
        "tl_reward/show/plots/escape.py",
        '    return html.escape(text, quote=False).replace("$", "&#36;").replace("%{", "&#37;{")',
        "    return text",
        "tests/attack/test_hostile_page.py::test_no_figure_can_forget_it",
    ),
    Guard(
        "connections are bounded",
        "tl_reward/show/live/connections.py",
        "oldest.transport.abort()",
        "pass",
        "tests/attack/test_live.py::test_half_open_connections_of_strangers_do_not_block_the_page",
    ),
    Guard(
        "requests at work are bounded",
        "tl_reward/show/live/guard.py",
        "self._at_work >= MOST_AT_WORK",
        "False",
        "tests/attack/test_live.py::test_many_requests_at_once_are_each_answered_in_one_way_or_another",
    ),
    Guard(
        "what a killed writer leaves is cleared",
        "tl_reward/show/page/files.py",
        " or _left_behind(item)",
        "",
        "tests/attack/test_page_writers.py::test_a_killed_writer_leaves_the_old_page_and_nothing_in_the_way",
    ),
    Guard(
        "examples see changed code",
        "tl_reward/analyses/examples/identity.py",
        "content_hash(list(interventions))",
        "str(len(interventions))",
        "tests/analyses/test_examples_identity.py::test_examples_do_not_go_on_with_another_body",
    ),
    Guard(
        "examples see changed weights",
        "tl_reward/analyses/examples/identity.py",
        "content_hash(dict(task.model.named_parameters()))",
        '""',
        "tests/analyses/test_examples.py::test_a_checkpoint_of_something_else_is_refused",
    ),
    Guard(
        "a training goes on as it was begun",
        "tl_reward/model/training/bradley_terry.py",
        "check_the_same(output, begun)",
        "pass",
        "tests/model/test_training.py::test_a_killed_training_resumes_from_its_checkpoint_and_ends_like_one_that_was_not",
    ),
    Guard(
        "a training that diverged saves nothing",
        "tl_reward/model/training/bradley_terry.py",
        "check_finite(result.global_step, losses, trainer.model)",
        "pass",
        "tests/model/test_training.py::test_a_training_that_diverged_saves_nothing",
    ),
    Guard(
        "a killed process ends the others",
        "tl_reward/parallel.py",
        "except RuntimeError as error:  # of gloo, or of the store",
        "except ZeroDivisionError as error:",
        "tests/test_parallel.py::test_where_no_launcher_ends_them_a_killed_process_ends_the_others_in_one_line",
    ),
    Guard(
        "a run of another model",
        "tl_reward/results/disk/models.py",
        "    if differ:",
        "    if False:",
        "tests/results/test_record_models.py::test_what_a_run_found_in_one_model_is_not_used_for_another",
    ),
    Guard(
        "a ranking of another model",
        "tl_reward/cli/options.py",
        "check_model(found, self.recorded(found, plain), model, other_model=other_model)",
        "pass",
        "tests/results/test_record_models.py::test_a_ranking_of_another_model_in_a_folder_of_that_name_is_refused",
    ),
    Guard(
        "a save that is killed",
        "tl_reward/results/disk/folder.py",
        "return saved if saved.exists() else folder / name",
        "return folder / name",
        "tests/results/test_run_folder_on_disk.py::test_a_save_that_is_killed",
    ),
    Guard(
        "links out of a run folder",
        "tl_reward/results/disk/folder.py",
        "if not path.resolve().is_relative_to(folder.resolve()):",
        "if False:",
        "tests/attack/test_run_folders.py::test_links_out_of_the_folder_are_not_followed",
    ),
    Guard(
        "types of a run are strict",
        "tl_reward/results/disk/types.py",
        "(value, strict=True)",
        "(value)",
        "tests/results/test_store.py::test_what_load_would_refuse_is_refused_by_add",
    ),
)
