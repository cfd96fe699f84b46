package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sockwatch/agent"
	"sockwatch/agent/filter"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

const exampleGuide = `## The configuration of sockwatch, with all options.
##
## This is the built-in configuration. sockwatch uses it if it finds no other:
## --config FILE, else $SOCKWATCH_CONFIG, else /etc/sockwatch/sockwatch.toml and
## /etc/sockwatch/sockwatch.d/*.toml. To write your own:
##   sockwatch config >/etc/sockwatch/sockwatch.toml
##   sockwatch check     # print all errors with their lines
##   kill -HUP PID       # reload; if there are errors, the running one stays
##
## "##" begins an explanation. "#" begins an option or a plugin that is not set: remove
## the "#" to set it. Durations look like "10s" or "1m30s", sizes like "64MiB". Inside
## strings, ${VAR} and ${VAR:-default} are replaced by environment variables; write $${
## for a literal "${". A plugin may be used several times, each time with another "alias".
`

// allCommonShown are the plugins, an input and an output, whose sections show all
// common options, and the lines before these.
var allCommonShown = map[string][]string{
	"tcp_listen": {"Options of every input. Patterns are globs: *, ?, [a-z], {a,b}."},
	"influxdb": {
		"Options of every output that pushes. An endpoint such as prometheus also has the",
		"alias and the filters: namepass to fieldexclude.",
	},
}

// exampleFilters are filters that fit together.
func exampleFilters() filter.Options {
	return filter.Options{
		NamePass:     []string{"tcp_listen*", "sockwatch_*"},
		NameDrop:     []string{"custom_port_exporter"},
		TagPass:      map[string][]string{"exposure": {"private", "public"}},
		TagDrop:      map[string][]string{"process": {"sshd", "systemd*"}},
		TagInclude:   []string{"*"},
		TagExclude:   []string{"container", "pod"},
		FieldInclude: []string{"*"},
		FieldExclude: []string{"exe", "cmdline"},
	}
}

// sampleFilters are exampleFilters with those of the plugin's sample.
func sampleFilters(p plugin.Plugin) filter.Options {
	o := exampleFilters()
	if p.Sample.NamePass != nil {
		o.NamePass = p.Sample.NamePass
	}
	if p.Sample.NameDrop != nil {
		o.NameDrop = p.Sample.NameDrop
	}
	return o
}

// exampleCommon returns the common options of a plugin with a value in each, and
// their defaults.
func exampleCommon(p plugin.Plugin) (example, defaults any) {
	switch {
	case p.NewInput != nil:
		return &agent.InputOptions{
			Interval:         plugin.Duration(30 * time.Second),
			CollectionJitter: plugin.Duration(2 * time.Second),
			Timeout:          plugin.Duration(5 * time.Second),
			Alias:            "local",
			NameOverride:     "listeners",
			NamePrefix:       "edge_",
			NameSuffix:       "_v1",
			Tags:             map[string]string{"role": "web"},
			Options:          sampleFilters(p),
		}, &agent.InputOptions{}
	case p.NewPusher != nil:
		o, d := agent.DefaultPushOptions(p), agent.DefaultPushOptions(p)
		o.Alias, o.Options = "eu", sampleFilters(p)
		return &o, &d
	default:
		return &agent.EndpointOptions{Alias: "public", Options: sampleFilters(p)}, &agent.EndpointOptions{}
	}
}

// exampleAgent returns the [agent] table with a value in each option.
func exampleAgent() *agent.Options {
	o := agent.DefaultOptions()
	o.Hostname = "web1.example.org"
	o.StateDirectory = "/var/lib/sockwatch"
	return &o
}

// renderExample returns config.example.toml.
func renderExample(t *testing.T, plugins []plugin.Plugin) string {
	var w exampleWriter
	w.text = exampleGuide
	w.line("\n## Tags of every point.")
	w.line("[global_tags]")
	w.line(`  # dc = "fra1"`)
	w.line(`  # rack = "${RACK:-1a}"`)
	w.line("\n[agent]")
	defaults := agent.DefaultOptions()
	w.options(t, optionsOf(t, exampleAgent()), optionsOf(t, &defaults), nil)
	w.line("\n## INPUTS")
	for _, p := range plugins {
		if p.NewInput != nil {
			w.plugin(t, "inputs", p)
		}
	}
	w.line("\n## OUTPUTS")
	for _, p := range plugins {
		if p.NewInput == nil {
			w.plugin(t, "outputs", p)
		}
	}
	return w.text
}

type exampleWriter struct{ text string }

func (w *exampleWriter) line(format string, args ...any) {
	w.text += fmt.Sprintf(format, args...) + "\n"
}

func (w *exampleWriter) plugin(t *testing.T, side string, p plugin.Plugin) {
	w.line("")
	w.comment("", wrap(packageSynopsis(t, pluginDir(p)), 86))
	if p.Sample.Active {
		w.line("[[%s.%s]]", side, p.Name)
	} else {
		w.line("# [[%s.%s]]", side, p.Name)
	}
	var first, rest []option // common ones
	common, defaults := exampleCommon(p)
	intro, all := allCommonShown[p.Name]
	for _, o := range optionsOf(t, common) {
		if o.name == sampleFilter(p) {
			o.doc = wrap(p.Sample.Why, 80)
			first = append(first, o)
		} else if all {
			rest = append(rest, o)
		}
	}
	active := make(map[string]bool)
	if p.Sample.Active {
		active[sampleFilter(p)] = true
	}
	w.options(t, first, optionsOf(t, defaults), active)

	own := make(map[string]bool)
	for _, name := range p.Sample.Options {
		own[name] = true
	}
	var values, tables []option
	for _, o := range optionsOf(t, p.Example()) {
		if o.nested != nil {
			tables = append(tables, o)
		} else {
			values = append(values, o)
		}
	}
	w.options(t, values, optionsOf(t, p.Defaults()), own)

	if all {
		w.line("")
		w.comment("  ", intro)
	}
	w.options(t, rest, optionsOf(t, defaults), nil)
	for _, o := range tables { // what follows them would be theirs
		w.table(t, side+"."+p.Name, o)
	}
}

// sampleFilter returns the name of the filter option that a plugin's sample sets.
func sampleFilter(p plugin.Plugin) string {
	switch {
	case p.Sample.NamePass != nil:
		return "namepass"
	case p.Sample.NameDrop != nil:
		return "namedrop"
	default:
		return ""
	}
}

// setAsShipped sets the options of a plugin that are active in the example file.
func setAsShipped(t *testing.T, p plugin.Plugin, options any) {
	t.Helper()
	to := reflect.ValueOf(options).Elem()
	example := reflect.ValueOf(p.Example()).Elem()
	for _, name := range p.Sample.Options {
		i := slices.IndexFunc(reflect.VisibleFields(to.Type()), func(f reflect.StructField) bool { return f.Tag.Get("toml") == name })
		if i < 0 {
			t.Fatalf("%s has no option %s, which its sample sets", p.Name, name)
		}
		to.Field(i).Set(example.Field(i))
	}
}

// comment writes lines of explanation.
func (w *exampleWriter) comment(indent string, lines []string) {
	for _, line := range lines {
		w.line("%s## %s", indent, line)
	}
}

// wrap breaks a text into lines.
func wrap(text string, width int) []string {
	var lines []string
	for word := range strings.FieldsSeq(text) {
		if n := len(lines) - 1; n >= 0 && len(lines[n])+1+len(word) <= width {
			lines[n] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// options writes options, commented out unless they are active.
func (w *exampleWriter) options(t *testing.T, options, defaults []option, active map[string]bool) {
	byDefault := make(map[string]string)
	for _, o := range defaults {
		byDefault[o.name] = inlineTOML(t, o.value)
	}
	for _, o := range options {
		w.comment("  ", o.doc)
		value := inlineTOML(t, o.value)
		if d := byDefault[o.name]; d != value && !empty(d) {
			w.line("  ## Default: %s", d)
		}
		hash := "# "
		if active[o.name] {
			hash = ""
		}
		w.line("  %s%s = %s", hash, o.name, value)
	}
}

// table writes an option that is a list of tables, commented out.
func (w *exampleWriter) table(t *testing.T, path string, o option) {
	w.line("")
	w.comment("  ", o.doc)
	for i, element := range o.nested {
		w.line("  # [[%s.%s]]", path, o.name)
		for _, e := range element {
			if e.value.IsZero() {
				continue // an empty list would be an error
			}
			if i == 0 {
				w.comment("    ", e.doc)
			}
			w.line("    # %s = %s", e.name, inlineTOML(t, e.value))
		}
	}
}

// pluginDir returns the folder of a plugin: the one of its options struct.
func pluginDir(p plugin.Plugin) string {
	return packageDir(reflect.TypeOf(p.Defaults()).Elem().PkgPath())
}

// empty reports whether a default is not worth a line.
func empty(value string) bool {
	return value == `""` || value == "[]" || value == "{}" || value == `"0s"`
}

// renderOptions returns the table of a plugin's options for its README.
func renderOptions(t *testing.T, p plugin.Plugin) string {
	var b strings.Builder
	b.WriteString("| option | default | meaning |\n|---|---|---|\n")
	defaults := make(map[string]option)
	for _, o := range optionsOf(t, p.Defaults()) {
		defaults[o.name] = o
	}
	nested := nestedOptions{names: make(map[nestedOption][]string)}
	for _, o := range optionsOf(t, p.Example()) {
		value := "`" + inlineTOML(t, defaults[o.name].value) + "`"
		if o.nested != nil {
			value = "none"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", o.name, value, cell(strings.Join(o.doc, " ")))
		if len(o.nested) > 0 {
			nested.add(o.name, o.nested[0])
		}
	}
	for _, key := range nested.order {
		fmt.Fprintf(&b, "| %s | | %s |\n", strings.Join(nested.names[key], ", "), cell(key.doc))
	}
	return b.String()
}

// nestedOptions are the options of tables in a plugin's options. Several tables may share
// an option.
type nestedOptions struct {
	order []nestedOption
	names map[nestedOption][]string // "`TABLE.OPTION`"
}

type nestedOption struct{ name, doc string }

func (n *nestedOptions) add(table string, options []option) {
	for _, o := range options {
		key := nestedOption{o.name, strings.Join(o.doc, " ")}
		if n.names[key] == nil {
			n.order = append(n.order, key)
		}
		n.names[key] = append(n.names[key], "`"+table+"."+o.name+"`")
	}
}

// cell escapes characters that would end a cell of a Markdown table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// renderMetrics returns the table of the metrics that descriptions make.
func renderMetrics(descs []metric.Desc) string {
	var b strings.Builder
	b.WriteString("| metric | type | unit | meaning |\n|---|---|---|---|\n")
	for _, d := range descs {
		if isEvent(d) {
			continue // endpoints do not show it
		}
		name, kind := "`"+d.Name+"_"+d.Field+"`", d.Type.String()
		switch {
		case d.Field == "value":
			name = "`" + d.Name + "`"
		case d.Type == metric.Untyped: // a string is not a metric
			name, kind = fmt.Sprintf("field `%s` of `%s`", d.Field, d.Name), "string"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, kind, d.Unit, cell(d.Help))
	}
	return b.String()
}

func isEvent(d metric.Desc) bool { return strings.HasSuffix(d.Name, "_event") }

// renderEvents returns the table of the fields of events. Several events may share a
// field.
func renderEvents(descs []metric.Desc) string {
	type field struct{ name, unit, help string }
	var order []field
	events := make(map[field][]string)
	for _, d := range descs {
		if !isEvent(d) {
			continue
		}
		f := field{d.Field, d.Unit, d.Help}
		if events[f] == nil {
			order = append(order, f)
		}
		events[f] = append(events[f], "`"+d.Name+"`")
	}
	var b strings.Builder
	b.WriteString("| field | of | unit | meaning |\n|---|---|---|---|\n")
	for _, f := range order {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.name, strings.Join(events[f], ", "), f.unit, cell(f.help))
	}
	return b.String()
}
