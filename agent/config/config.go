// Package config builds an agent from TOML files. It is strict, reports all errors at
// once with file and line, and opens nothing: files that others include are read by the
// functions of Host.
package config

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"sockwatch/agent"
	"sockwatch/agent/plugin"
)

// A File is one configuration file. Its name is for errors only.
type File struct {
	Name, Text string
	Shared     bool // any user of the host can read it
}

// A Host gives the loader and the plugins access to the system.
type Host struct {
	Getenv   func(name string) (string, bool) // reports false if it is not set
	Hostname func() (string, error)
	Log      *slog.Logger
	Listen   func(ctx context.Context, network, address string) (net.Listener, error)
	// Glob returns the files that a pattern matches, sorted; none is not an error.
	Glob func(pattern string) ([]string, error)
	// ReadFile reads a file that the configuration includes. Its errors need not name it.
	ReadFile func(path string) (File, error)
	Version  string // the program's version

	// InputsOnly is set if only the inputs will be used: there need not be an output,
	// and the inputs keep nothing in the state directory, which may be that of a
	// program that runs.
	InputsOnly bool
}

// Load returns the agent that the files describe together. Each file may add inputs and
// outputs; only one may have [agent], and only one [global_tags]. The error is an Errors.
func Load(files []File, plugins []plugin.Plugin, host Host) (*agent.Agent, error) {
	l := loader{
		decoder: decoder{report: &report{files: slices.Clip(files)}, getenv: host.Getenv, secrets: make(map[int]bool)},
		plugins: plugins, host: host, present: make(map[string]bool), included: make(map[string]int),
	}
	for i := range files {
		l.read(i)
	}
	l.requireInputsAndOutputs()
	settings := l.agentSettings()
	for _, in := range l.instances {
		l.decode(in)
	}
	l.name()
	l.compareExclusive()
	a := &agent.Agent{Options: settings.options, Log: host.Log, Version: host.Version, Tags: settings.tags}
	for _, in := range l.instances {
		l.build(a, in, settings)
	}
	if len(l.errs) > 0 {
		return nil, sorted(l.errs)
	}
	for _, in := range l.instances {
		l.warn(in)
	}
	for _, w := range sorted(l.warnings) {
		host.Log.Warn(w.Message, "file", w.File, "line", w.Line)
	}
	for _, file := range slices.Sorted(maps.Keys(l.secrets)) {
		if l.files[file].Shared {
			host.Log.Warn("configuration file contains a secret and any user can read it; run chmod o-r", "file", l.files[file].Name)
		}
	}
	return a, nil
}

// A loader builds an agent from the tables of the files.
type loader struct {
	decoder
	plugins []plugin.Plugin
	host    Host

	agent      *table // [agent], nil if no file has it
	globalTags *table // [global_tags], nil if no file has it
	instances  []*instance
	broken     bool            // a file could not be parsed; it may contain what seems to be missing
	included   map[string]int  // files that instances include, by path: indexes of files
	present    map[string]bool // "inputs", "outputs": whether any file has one
}

// A table is one table of a file: its values and their lines.
type table struct {
	file    int    // index in loader.files
	path    string // "agent", "inputs.tcp_listen"
	values  map[string]any
	at      *node
	written redaction // filled while the values are set
	// elements are the tables of the options that are lists of tables, those of included
	// files too. It is filled while the values are set.
	elements map[string][]table
}

// An instance is one [[inputs.KIND]] or [[outputs.KIND]].
type instance struct {
	table
	side   string // "inputs" or "outputs"
	kind   string
	plugin plugin.Plugin

	name     string         // KIND or KIND-ALIAS
	common   plugin.Options // *agent.InputOptions, *agent.PushOptions or *agent.EndpointOptions
	settings plugin.Options // the plugin's own options
	valid    bool           // decoded and validated without an error
}

// read parses a file and collects its tables.
func (l *loader) read(file int) {
	values, at, ok := l.parse(file)
	if !ok {
		l.broken = true
		return
	}
	for _, key := range at.order {
		t := table{file: file, path: key, at: at.key(key), written: redaction{}, elements: make(map[string][]table)}
		switch key {
		case "agent":
			l.single(&l.agent, t, values[key])
		case "global_tags":
			l.single(&l.globalTags, t, values[key])
		case "inputs", "outputs":
			l.side(t, values[key])
		default:
			l.unknownTable(t, values[key])
		}
	}
}

// unknownTable records an error for anything that is not one of the four tables.
func (l *loader) unknownTable(t table, value any) {
	const known = "the tables are [global_tags], [agent], [[inputs.NAME]] and [[outputs.NAME]]"
	key := t.path
	t.path = ""
	if _, isTable := value.(map[string]any); !isTable {
		if _, isList := tables(value); !isList {
			l.errorf(t, t.at, "option %q is outside any table (%s)", key, known)
			return
		}
	}
	hint := didYouMean(key, []string{"global_tags", "agent", "inputs", "outputs"})
	l.errorf(t, t.at, "unknown table %q%s", key, inParentheses(cmp.Or(telegrafTables[key], l.includable(key), hint, known)))
}

// single stores a table that may occur only once in all files.
func (l *loader) single(kept **table, t table, value any) {
	values, ok := value.(map[string]any)
	switch {
	case !ok:
		l.errorf(t, t.at, "must be one table: write [%s]", t.path)
	case *kept != nil:
		l.errorf(t, t.at, "is already defined at %s; only one file may have it", l.place((*kept).file, (*kept).at))
	default:
		t.values = values
		*kept = &t
	}
}

// side collects the instances of [[inputs...]] or [[outputs...]].
func (l *loader) side(t table, value any) {
	kinds, ok := value.(map[string]any)
	if !ok || len(kinds) > 0 {
		l.present[t.path] = true
	}
	if !ok {
		l.errorf(t, t.at, "must name a plugin: write [[%s.NAME]] (known: %s)", t.path, strings.Join(l.kinds(t.path), ", "))
		return
	}
	var found []*instance
	for _, kind := range t.at.order {
		of := table{file: t.file, path: t.path + "." + kind, at: t.at.key(kind)}
		p, ok := l.plugin(t.path, kind)
		list, _ := tables(kinds[kind])
		switch {
		case !ok:
			l.unknownPlugin(of, t.path, kind)
		case len(list) == 0:
			l.errorf(of, of.at, "must be a list of tables: write [[%s]]", of.path)
		default:
			for i, values := range list {
				of.values, of.at, of.written, of.elements = values, t.at.key(kind).item(i), redaction{}, make(map[string][]table)
				found = append(found, &instance{table: of, side: t.path, kind: kind, plugin: p})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b *instance) int { return a.at.line - b.at.line })
	l.instances = append(l.instances, found...)
}

// plugin returns the plugin of a kind on a side.
func (l *loader) plugin(side, kind string) (plugin.Plugin, bool) {
	for _, p := range l.plugins {
		if p.Name == kind && sideOf(p) == side {
			return p, true
		}
	}
	return plugin.Plugin{}, false
}

func (l *loader) unknownPlugin(t table, side, kind string) {
	for _, p := range l.plugins {
		if p.Name == kind {
			l.errorf(t, t.at, "%s belongs to the %s: write [[%s.%[1]s]]", kind, sideOf(p), sideOf(p))
			return
		}
	}
	if p, ok := l.telegrafPlugin(side, kind); ok {
		l.errorf(t, t.at, "unknown plugin %q (write [[%s.%s]])", kind, side, p.Name)
		return
	}
	known := l.kinds(side)
	l.errorf(t, t.at, "unknown plugin %q%s", kind, inParentheses(didYouMean(kind, known), "known: "+strings.Join(known, ", ")))
}

// kinds returns the names of the plugins of a side, sorted.
func (l *loader) kinds(side string) []string {
	var known []string
	for _, p := range l.plugins {
		if sideOf(p) == side {
			known = append(known, p.Name)
		}
	}
	slices.Sort(known)
	return known
}

func sideOf(p plugin.Plugin) string {
	if p.NewInput != nil {
		return "inputs"
	}
	return "outputs"
}

// requireInputsAndOutputs records an error unless there is an input and an output.
func (l *loader) requireInputsAndOutputs() {
	if l.broken {
		return
	}
	for _, side := range []string{"inputs", "outputs"} {
		if !l.present[side] && !(side == "outputs" && l.host.InputsOnly) {
			t := table{file: noFile}
			if len(l.files) == 1 {
				t.file = 0
			}
			l.errorf(t, nil, "no %s: at least one [[%[1]s.NAME]] is needed (known: %s)", side, strings.Join(l.kinds(side), ", "))
		}
	}
}

// name gives every instance its name, KIND or KIND-ALIAS. Names must be unique, so that
// no edit of a file gives one output's queue to another.
func (l *loader) name() {
	count := make(map[string]int)
	for _, in := range l.instances {
		count[in.path]++
	}
	taken := make(map[string]*instance)
	for _, in := range l.instances {
		alias, isString := in.values["alias"].(string)
		_, given := in.values["alias"]
		if given && !isString { // reported by decode
			continue
		}
		if in.name = in.kind; alias != "" {
			in.name += "-" + alias
		}
		key := in.side + "." + in.name
		switch other := taken[key]; {
		case alias == "" && count[in.path] > 1:
			l.errorf(in.table, in.at.key("alias"), "alias: there are %d instances of this plugin: give each its own alias", count[in.path])
		case other != nil:
			l.errorf(in.table, in.at.key("alias"), "alias: %q is already used by %s, %s", in.written.show(alias), other.path, l.place(other.file, other.at.key("alias")))
		default:
			taken[key] = in
		}
	}
}

// compareExclusive records an error if two instances name the same exclusive resource.
// It reports only the first one of each pair: the others may follow from it.
func (l *loader) compareExclusive() {
	taken := make(map[string]*instance)
	type pair struct{ a, b *instance }
	reported := make(map[pair]bool)
	for _, in := range l.instances {
		exclusive, ok := in.settings.(plugin.Exclusive)
		if !ok || !in.valid {
			continue
		}
		for _, resource := range exclusive.Exclusive() {
			other := taken[resource]
			if other == nil {
				taken[resource] = in
				continue
			}
			if other == in || reported[pair{other, in}] {
				continue
			}
			reported[pair{other, in}] = true
			option, value, _ := strings.Cut(resource, " ")
			if unquoted, err := strconv.Unquote(value); err == nil {
				value = strconv.Quote(in.written.show(unquoted))
			}
			its := "" // the other's option, if it differs from the resource
			if set, ok := other.values[option].(string); ok && strconv.Quote(set) != value {
				its = fmt.Sprintf(" (%s = %q)", option, other.written.show(set))
			}
			l.errorf(in.table, in.at.key(option), "%s %s is already used by %s%s, %s", option, value, other.path, its, l.place(other.file, other.at.key(option)))
		}
	}
}

// build constructs an instance that has no errors, and adds it to the agent.
func (l *loader) build(a *agent.Agent, in *instance, s settings) {
	if !in.valid {
		return
	}
	env := plugin.Env{
		Hostname: s.hostname, StateDir: s.options.StateDirectory,
		Name: in.name, Listen: l.host.Listen,
	}
	var err error
	switch common := in.common.(type) {
	case *agent.InputOptions:
		env.Log = l.host.Log.With("plugin", "inputs."+in.name)
		if l.host.InputsOnly {
			env.StateDir = ""
		}
		l.inherit(in, common, s)
		built := &agent.Input{
			Name: in.name, Options: *common, RoundInterval: s.options.RoundInterval,
			Settings: in.settings, Plugin: in.plugin,
		}
		built.Input, err = in.plugin.NewInput(in.settings, env)
		a.Inputs = append(a.Inputs, built)
	case *agent.PushOptions:
		env.Log = l.host.Log.With("plugin", "outputs."+in.name)
		if common.Buffer == "disk" && env.StateDir == "" {
			l.errorf(in.table, in.at.key("buffer"), `buffer: "disk" needs a state_directory in [agent], or $STATE_DIRECTORY`)
		}
		built := &agent.Push{Name: in.name, Options: *common, Settings: in.settings, Plugin: in.plugin}
		built.Pusher, err = in.plugin.NewPusher(in.settings, env)
		a.Push = append(a.Push, built)
	case *agent.EndpointOptions:
		env.Log = l.host.Log.With("plugin", "outputs."+in.name)
		built := &agent.Pull{Name: in.name, Options: *common, Settings: in.settings, Plugin: in.plugin}
		built.Endpoint, err = in.plugin.NewEndpoint(in.settings, env)
		a.Pull = append(a.Pull, built)
	}
	if err != nil {
		l.invalid(in.table, err, nil)
	}
}

// warn records a warning for each option of an instance that is valid, but looks wrong. It omits
// values that come from variables or may be secret: a warning may contain them in another form.
func (l *loader) warn(in *instance) {
	all := report{files: l.files}
	for _, options := range []plugin.Options{in.common, in.settings} {
		w, ok := options.(plugin.Warner)
		if !ok {
			continue
		}
		for _, e := range flatten(w.Warn()) {
			if plugin.Show(e, in.written.show) == e.Error() {
				all.invalid(in.table, e, nil)
			}
		}
	}
	l.warnings = append(l.warnings, all.errs...)
}

// merged returns the tags of all tables. Later tables win, and an empty value removes a
// tag.
func merged(tables ...map[string]string) map[string]string {
	all := make(map[string]string)
	for _, t := range tables {
		maps.Copy(all, t)
	}
	maps.DeleteFunc(all, func(_, value string) bool { return value == "" })
	return all
}
