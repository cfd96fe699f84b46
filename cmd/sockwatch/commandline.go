package main

import (
	"strings"

	"github.com/alecthomas/kong"
)

// A commandDoc is one command of the command line, as shown in completions and the man page.
type commandDoc struct {
	name      string
	help      string // one sentence
	detail    string // paragraphs, and examples that are indented
	isDefault bool   // runs if no command is given
	flags     []flagDoc
	arguments []flagDoc
}

// A flagDoc is a flag of a command, or an argument.
type flagDoc struct {
	name     string // without "--"
	short    string // one letter, or ""
	help     string // sentences
	value    string // the kind of value, such as "FILE"; "": no value
	optional bool   // the value may be omitted; otherwise it follows "="
	list     bool   // the value may be a list with commas
	choices  []string
}

// commandsOf returns the commands of a model, in its order.
func commandsOf(model *kong.Application) []commandDoc {
	var all []commandDoc
	for _, node := range model.Leaves(true) {
		c := commandDoc{name: node.Name, help: node.Help, detail: node.Detail, isDefault: model.DefaultCmd == node}
		for _, group := range node.AllFlags(true) {
			for _, f := range group {
				c.flags = append(c.flags, flagOf(f.Value))
			}
		}
		for _, a := range node.Positional {
			c.arguments = append(c.arguments, flagOf(a))
		}
		all = append(all, c)
	}
	return all
}

func flagOf(v *kong.Value) flagDoc {
	f := flagDoc{name: v.Name, help: v.Help}
	if v.Flag != nil && v.Flag.Short != 0 {
		f.short = string(v.Flag.Short)
	}
	if v.Flag == nil || !v.IsBool() {
		f.value = v.Tag.PlaceHolder
	}
	target := v.Target.Addr().Interface()
	if _, ok := target.(*redrawInterval); ok {
		f.value, f.optional = "INTERVAL", true
	}
	if c, ok := target.(interface{ choices() []string }); ok {
		f.choices = c.choices()
	}
	_, f.list = target.(*exposures)
	return f
}

// summary returns the first sentence of a flag's help, without its full stop.
func (f *flagDoc) summary() string { return firstSentence(f.help) }

func (c *commandDoc) summary() string { return firstSentence(c.help) }

func firstSentence(text string) string {
	first, _, _ := strings.Cut(text, ". ")
	return strings.TrimSuffix(first, ".")
}

// names returns how a flag is written: "--help -h".
func (f *flagDoc) names() []string {
	if f.short != "" {
		return []string{"--" + f.name, "-" + f.short}
	}
	return []string{"--" + f.name}
}

// needsValue reports whether the word after the flag is its value.
func (f *flagDoc) needsValue() bool { return f.value != "" && !f.optional }

func commandNames(commands []commandDoc) []string {
	var names []string
	for _, c := range commands {
		names = append(names, c.name)
	}
	return names
}
