package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

type completionCommand struct {
	Shell shell `arg:"" placeholder:"SHELL" help:"bash, zsh or fish."`
}

// Run prints the script. It is static: completing a word does not run sockwatch.
func (c *completionCommand) Run(p *program) error {
	commands := commandsOf(newParser().Model)
	var script string
	switch c.Shell {
	case "bash":
		script = bashCompletion(commands)
	case "zsh":
		script = zshCompletion(commands)
	case "fish":
		script = fishCompletion(commands)
	}
	_, err := io.WriteString(p.stdout, script)
	return err
}

// A shell is one that completion knows.
type shell string

func (s *shell) UnmarshalText(text []byte) error {
	if *s = shell(text); !slices.Contains(s.choices(), string(text)) {
		return fmt.Errorf("%q is not one of %s", text, strings.Join(s.choices(), ", "))
	}
	return nil
}

func (shell) choices() []string { return []string{"bash", "zsh", "fish"} }

func bashCompletion(commands []commandDoc) string {
	var words, skip, values strings.Builder
	flagsOf := make(map[string][]string) // by the command that completes their values
	for _, c := range commands {
		var flags, choices []string
		names := []string{c.name}
		if c.isDefault {
			names = append(names, "")
		}
		for _, f := range c.flags {
			flags = append(flags, f.names()...)
			if !f.needsValue() {
				continue
			}
			if c.isDefault {
				fmt.Fprintf(&skip, "\t\t--%s) ((i++)) ;;\n", f.name)
			}
			for _, name := range names {
				flagsOf[bashValue(&f)] = append(flagsOf[bashValue(&f)], name+":--"+f.name)
			}
		}
		for _, a := range c.arguments {
			choices = append(choices, a.choices...)
		}
		fmt.Fprintf(&words, "\t%s) flags=%s words=%s ;;\n", c.name, quoted(flags), quoted(choices))
		if c.isDefault {
			fmt.Fprintf(&words, "\t'') flags=%s words=%s ;;\n", quoted(flags), quoted(commandNames(commands)))
		}
	}
	for _, value := range slices.Sorted(maps.Keys(flagsOf)) {
		fmt.Fprintf(&values, "\t%s)\n\t\t%s\n\t\treturn\n\t\t;;\n", strings.Join(flagsOf[value], "|"), value)
	}
	return strings.NewReplacer("NAMES", strings.Join(commandNames(commands), "|"), "VALUES\n", values.String(), "WORDS\n", words.String(), "SKIP\n", skip.String()).Replace(
		`# Completion for bash, printed by "sockwatch completion bash".
_sockwatch() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= flags= words= i
	COMPREPLY=()
	if [[ $cur == = ]]; then # bash makes "=" a word of its own
		cur=
	elif [[ $prev == = && COMP_CWORD -gt 1 ]]; then
		prev=${COMP_WORDS[COMP_CWORD-2]}
	fi
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
SKIP
		NAMES)
			command=${COMP_WORDS[i]}
			break
			;;
		esac
	done
	case $command:$prev in
VALUES
	esac
	case $command in
WORDS
	esac
	if [[ $cur == -* || -z $words ]]; then
		words=$flags
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _sockwatch sockwatch
`)
}

// bashValue returns the command that completes the value of a flag.
func bashValue(f *flagDoc) string {
	switch {
	case f.choices != nil:
		return `mapfile -t COMPREPLY < <(compgen -W ` + quoted(f.choices) + ` -- "$cur")`
	case f.value == "FILE":
		return `compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur")`
	case f.value == "DIR":
		return `compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur")`
	default:
		return ":"
	}
}

func zshCompletion(commands []commandDoc) string {
	var descriptions, cases, top strings.Builder
	for _, c := range commands {
		fmt.Fprintf(&descriptions, "\t\t%s\n", singleQuoted(c.name+":"+c.summary()))
		var specs []string
		for _, f := range c.flags {
			specs = append(specs, zshFlag(&f))
		}
		if c.isDefault {
			top.WriteString(strings.Join(specs, " \\\n\t\t"))
		}
		for _, a := range c.arguments {
			specs = append(specs, singleQuoted(":"+a.value+":"+zshValue(&a)))
		}
		fmt.Fprintf(&cases, "\t\t%s)\n\t\t\t_arguments : \\\n\t\t\t\t%s && ret=0\n\t\t\t;;\n", c.name, strings.Join(specs, " \\\n\t\t\t\t"))
	}
	return strings.NewReplacer("COMMANDS\n", descriptions.String(), "CASES\n", cases.String(), "TOP", top.String()).Replace(
		`#compdef sockwatch
# Completion for zsh, printed by "sockwatch completion zsh".
_sockwatch() {
	local curcontext="$curcontext" state state_descr line ret=1
	local -a commands
	typeset -A opt_args
	commands=(
COMMANDS
	)
	_arguments -C : \
		TOP \
		':command:->command' \
		'*::argument:->argument' && ret=0
	case $state in
	command)
		_describe -t commands 'command' commands && ret=0
		;;
	argument)
		curcontext="${curcontext%:*:*}:sockwatch-$words[1]:"
		case $words[1] in
CASES
		esac
		;;
	esac
	return ret
}
if [ "$funcstack[1]" = _sockwatch ]; then
	_sockwatch "$@" # a file in $fpath, at its first use
else
	compdef _sockwatch sockwatch
fi
`)
}

// zshFlag returns the specification of a flag for _arguments.
func zshFlag(f *flagDoc) string {
	help := "[" + strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`).Replace(f.summary()) + "]"
	switch {
	case f.short != "":
		return fmt.Sprintf("'(-%s --%s)'{-%[1]s,--%[2]s}%s", f.short, f.name, singleQuoted(help))
	case f.optional:
		return singleQuoted("--" + f.name + "=-" + help + "::" + f.value + ": ")
	case f.value == "":
		return singleQuoted("--" + f.name + help)
	default:
		return singleQuoted("*--" + f.name + "=" + help + ":" + f.value + ":" + zshValue(f))
	}
}

// zshValue returns the action that completes the value of a flag.
func zshValue(f *flagDoc) string {
	switch {
	case f.list:
		return "_values -s , " + f.value + " " + strings.Join(f.choices, " ")
	case f.choices != nil:
		return "(" + strings.Join(f.choices, " ") + ")"
	case f.value == "FILE":
		return "_files"
	case f.value == "DIR":
		return "_files -/"
	default:
		return " "
	}
}

func fishCompletion(commands []commandDoc) string {
	var b strings.Builder
	b.WriteString("# Completion for fish, printed by \"sockwatch completion fish\".\ncomplete -c sockwatch -f\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "complete -c sockwatch -n __fish_use_subcommand -a %s -d %s\n", c.name, fishQuoted(c.summary()))
	}
	for _, c := range commands {
		when := "__fish_seen_subcommand_from " + c.name
		if c.isDefault {
			when = "__fish_use_subcommand; or " + when
		}
		for _, f := range c.flags {
			fmt.Fprintf(&b, "complete -c sockwatch -n %s", fishQuoted(when))
			if f.short != "" {
				fmt.Fprintf(&b, " -s %s", f.short)
			}
			fmt.Fprintf(&b, " -l %s%s -d %s\n", f.name, fishValue(&f), fishQuoted(f.summary()))
		}
		for _, a := range c.arguments {
			fmt.Fprintf(&b, "complete -c sockwatch -n %s -a %s\n", fishQuoted(when), fishQuoted(strings.Join(a.choices, " ")))
		}
	}
	return b.String()
}

// fishValue returns the options of complete for the value of a flag.
func fishValue(f *flagDoc) string {
	switch {
	case !f.needsValue():
		return ""
	case f.choices != nil:
		return " -x -a " + fishQuoted(strings.Join(f.choices, " "))
	case f.value == "FILE":
		return " -r -F"
	case f.value == "DIR":
		return " -x -a '(__fish_complete_directories)'"
	default:
		return " -x"
	}
}

// quoted quotes words for bash as one.
func quoted(words []string) string { return singleQuoted(strings.Join(words, " ")) }

// singleQuoted quotes for bash and zsh.
func singleQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// fishQuoted quotes for fish.
func fishQuoted(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}
