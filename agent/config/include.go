package config

import (
	"errors"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"sockwatch/agent/plugin"
)

// include appends the tables of the files that an instance includes to its options. It
// adds the options that have errors to bad.
func (l *loader) include(in *instance, bad badOptions) {
	includer, ok := in.settings.(plugin.Includer)
	if !ok {
		return
	}
	of := includer.Includes()
	if bad.cover(of.Option) {
		return
	}
	at := in.at.key(of.Option)
	seen := make(map[string]bool)
	for i, pattern := range optionFields(in.settings)[of.Option].Interface().(plugin.Strings) {
		for _, path := range l.includedFiles(in, of.Option, pattern, at.item(i), bad) {
			if seen[path] {
				continue
			}
			seen[path] = true
			file, err := l.readIncluded(path)
			if err != nil {
				l.errorf(in.table, at.item(i), "%s: %q: %v", of.Option, in.written.show(path), reason(err))
				bad[of.Option] = true
				continue
			}
			l.includeFile(in, of, file, bad)
		}
	}
}

// readIncluded returns the index of a file in loader.files. It is read once, although
// several instances may include it.
func (l *loader) readIncluded(path string) (file int, err error) {
	if file, ok := l.included[path]; ok {
		return file, nil
	}
	f, err := l.host.ReadFile(path)
	if err != nil {
		return noFile, err
	}
	f.Name = path
	l.files = append(l.files, f)
	l.included[path] = len(l.files) - 1
	return len(l.files) - 1, nil
}

// includedFiles returns the files that a value of the option means.
func (l *loader) includedFiles(in *instance, option, pattern string, at *node, bad badOptions) []string {
	fail := func(format string, args ...any) []string {
		l.errorf(in.table, at, "%s: %q"+format, append([]any{option, in.written.show(pattern)}, args...)...)
		bad[option] = true
		return nil
	}
	switch {
	case !filepath.IsAbs(pattern):
		return fail(" is not an absolute path")
	case !strings.ContainsAny(pattern, `*?[\`):
		return []string{pattern}
	}
	paths, err := l.host.Glob(pattern)
	if err != nil {
		return fail(": %v", reason(err))
	}
	return paths
}

// reason returns an error without the path, which the caller reports.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// includeFile appends the tables of a file that an instance includes to its options.
func (l *loader) includeFile(in *instance, of plugin.Include, file int, bad badOptions) {
	values, at, ok := l.parse(file)
	if !ok {
		bad[of.Option] = true
		return
	}
	fields := optionFields(in.settings)
	for _, key := range at.order {
		t := table{file: file, at: at.key(key)}
		list, isList := tables(values[key])
		switch {
		case !slices.Contains(of.Tables, key):
			l.errorf(t, t.at, "unknown table %q%s", key, inParentheses(didYouMean(key, of.Tables), "this file holds "+doubleBrackets(of.Tables)))
		case !isList:
			l.errorf(t, t.at, "%s: must be a list of tables: write [[%[1]s]]", key)
		default:
			l.appendTables(in, key, fields[key], list, t, bad)
			continue
		}
		bad[of.Option] = true
	}
}

func (l *loader) appendTables(in *instance, key string, to reflect.Value, list []map[string]any, t table, bad badOptions) {
	for i, values := range list {
		l.appendTable(in.table, key, to, table{file: t.file, path: key, values: values, at: t.at.item(i)}, bad)
	}
}

// doubleBrackets lists names as [[a]], [[b]] and [[c]].
func doubleBrackets(names []string) string {
	var all []string
	for _, name := range names {
		all = append(all, "[["+name+"]]")
	}
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " and " + all[last]
}

// includable returns the table of options that a top-level table of a file belongs to, if a
// file that a plugin includes may hold it; else "".
func (l *loader) includable(key string) string {
	for _, p := range l.plugins {
		if includer, ok := p.Defaults().(plugin.Includer); ok {
			if of := includer.Includes(); slices.Contains(of.Tables, key) {
				return "write [[" + sideOf(p) + "." + p.Name + "." + key + "]], or name this file in " + of.Option
			}
		}
	}
	return ""
}
