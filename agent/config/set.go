package config

import (
	"cmp"
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/plugin"
)

// A decoder sets options to the values of the files.
type decoder struct {
	*report
	getenv  func(name string) (string, bool)
	secrets map[int]bool // indexes of the files that contain a secret
}

// set sets the options of a table in structs, which are pointers: each option in the
// struct that has it. It records an error for each unknown option and each value of a
// wrong type, and returns the options with such values. It records a warning for each
// deprecated option. The library would stop at the first error, ignore the case of keys, and
// name Go types in its messages.
//
// foreign maps Telegraf's options to what to write instead.
func (d *decoder) set(t table, foreign []map[string]string, structs ...any) (bad badOptions) {
	bad = make(badOptions)
	fields := make(map[string]reflect.Value)
	secrets, deprecated := make(map[string]string), make(map[string]string)
	for _, s := range structs {
		maps.Copy(fields, optionFields(s))
		maps.Copy(secrets, optionTags(s, "secret"))
		maps.Copy(deprecated, optionTags(s, "deprecated"))
	}
	for key, v := range t.values {
		at := t.at.key(key)
		field, ok := fields[key]
		if !ok {
			hint := cmp.Or(instead(key, foreign), didYouMean(key, slices.Sorted(maps.Keys(fields))))
			d.errorf(t, at, "unknown option %q%s", key, inParentheses(hint))
			continue
		}
		if hint, ok := deprecated[key]; ok {
			d.warnf(t, at, "%s: is deprecated and will be removed: %s", key, hint)
		}
		if _, ok := secrets[key]; ok {
			if holdsSecret(v) {
				d.secrets[t.file] = true
			}
			t.written.hide(v)
		}
		if isTables(field) {
			d.setTables(t, key, field, v, bad)
		} else if !d.setOption(t, key, field, v, at) {
			bad[key] = true
		}
	}
	return bad
}

// A parser is an option that reads any value itself.
type parser interface{ UnmarshalTOML(v any) error }

// isTables reports whether an option is a list of tables.
func isTables(option reflect.Value) bool {
	_, parses := option.Addr().Interface().(parser)
	return !parses && option.Kind() == reflect.Slice && option.Type().Elem().Kind() == reflect.Struct
}

// setOption expands the variables in an option's value and sets it. It reports false if
// it recorded an error.
func (d *decoder) setOption(t table, key string, to reflect.Value, v any, at *node) bool {
	before := len(d.errs)
	if v = d.expandValue(t, key, v, at); len(d.errs) == before {
		t.values[key] = v
		d.setValue(t, key, to, v, at)
	}
	return len(d.errs) == before
}

// setTables sets an option that is a list of tables (structs). It adds the options that
// have errors to bad.
func (d *decoder) setTables(t table, key string, to reflect.Value, v any, bad badOptions) {
	list, ok := tables(v)
	if !ok {
		d.errorf(t, t.at.key(key), "%s: must be a list of tables: write [[%s.%s]]", key, t.path, key)
		bad[key] = true
		return
	}
	to.Set(reflect.MakeSlice(to.Type(), 0, len(list)))
	for i, values := range list {
		d.appendTable(t, key, to, table{
			file: t.file, path: t.path + "." + key, values: values, at: t.at.key(key).item(i),
		}, bad)
	}
}

// appendTable appends a table to the option of t that is a list of tables. It adds the
// options that have errors to bad.
func (d *decoder) appendTable(t table, key string, to reflect.Value, element table, bad badOptions) {
	element.written, element.elements = t.written, make(map[string][]table)
	at := fmt.Sprintf("%s[%d]", key, to.Len())
	t.elements[key] = append(t.elements[key], element)
	to.Set(reflect.Append(to, reflect.Zero(to.Type().Elem())))
	options := to.Index(to.Len() - 1).Addr().Interface()
	if o, ok := options.(plugin.Defaulter); ok {
		o.SetDefaults()
	}
	before := len(d.errs)
	for option := range d.set(element, nil, options) {
		bad[at+"."+option] = true
	}
	if len(d.errs) > before { // of an unknown option, too
		bad[at] = true
	}
}

// badOptions are the options that have an error already, by their path in the table:
// "urls", "expect[2].port". "expect[2]" says that some option of that element has one.
type badOptions map[string]bool

// cover reports whether an error of an option may follow from one that is reported
// already: one of the option, of an option that it is part of, or of an element of it.
func (b badOptions) cover(option string) bool {
	for bad := range b {
		if strings.HasPrefix(bad, option+"[") {
			return true
		}
	}
	for !b[option] {
		i := strings.LastIndexByte(option, '.')
		if i < 1 || option[i-1] == ']' {
			return false
		}
		option = option[:i]
	}
	return true
}

// setValue sets one option, or the part of it at path.
func (d *decoder) setValue(t table, path string, to reflect.Value, v any, at *node) {
	mismatch := func(format string, args ...any) {
		d.errorf(t, at, "%s: %s", path, fmt.Sprintf(format, args...))
	}
	describe := func(v any) string { return describe(v, t.written) }
	switch u := to.Addr().Interface().(type) {
	case parser:
		if err := u.UnmarshalTOML(v); err != nil {
			mismatch("%s", plugin.Show(err, t.written.show))
		}
		return
	case encoding.TextUnmarshaler:
		switch v.(type) {
		case string, int64, float64, bool:
			if err := u.UnmarshalText([]byte(fmt.Sprint(v))); err != nil {
				mismatch("%s", plugin.Show(err, t.written.show))
			}
		default:
			mismatch("%s cannot be used here: write a string", describe(v))
		}
		return
	}
	switch to.Kind() {
	case reflect.String:
		if s, ok := v.(string); ok {
			to.SetString(s)
		} else { // do not show the value: it may be a secret without quotes
			mismatch("must be a string: put it in quotes")
		}
	case reflect.Bool:
		if b, ok := v.(bool); ok {
			to.SetBool(b)
		} else {
			mismatch("%s is neither true nor false", describe(v))
		}
	case reflect.Int, reflect.Int64:
		if n, ok := v.(int64); ok && !to.OverflowInt(n) {
			to.SetInt(n)
		} else {
			mismatch("%s is not an integer", describe(v))
		}
	case reflect.Float64:
		switch n := v.(type) {
		case float64:
			to.SetFloat(n)
		case int64:
			to.SetFloat(float64(n))
		default:
			mismatch("%s is not a number", describe(v))
		}
	case reflect.Slice:
		d.setList(t, path, to, v, at)
	case reflect.Map:
		entries, ok := v.(map[string]any)
		if !ok {
			mismatch("%s is not a table: write { key = ... }", describe(v))
			return
		}
		to.Set(reflect.MakeMap(to.Type()))
		for key, v := range entries {
			value := reflect.New(to.Type().Elem()).Elem()
			if _, table := v.(map[string]any); table && value.Kind() == reflect.String {
				d.errorf(t, at.key(key), "%s.%s: must be a string: put a name with dots in quotes", path, key)
				continue
			}
			d.setValue(t, path+"."+key, value, v, at.key(key))
			to.SetMapIndex(reflect.ValueOf(key), value)
		}
	default:
		mismatch("options of type %v cannot be set", to.Type())
	}
}

// setList sets an option that is a list of values.
func (d *decoder) setList(t table, path string, to reflect.Value, v any, at *node) {
	list, ok := v.([]any)
	if !ok {
		d.errorf(t, at, "%s: must be a list: put it in [ ]", path)
		return
	}
	to.Set(reflect.MakeSlice(to.Type(), len(list), len(list)))
	for i, e := range list {
		d.setValue(t, path, to.Index(i), e, at.item(i))
	}
}

// setStrings sets a table of strings: [global_tags].
func (d *decoder) setStrings(t table, to map[string]string) {
	for key, v := range t.values {
		value := reflect.New(reflect.TypeFor[string]()).Elem()
		d.setOption(t, key, value, v, t.at.key(key))
		to[key] = value.String()
	}
}

// optionFields returns the fields of a struct and its embedded structs by option name.
// options is a pointer to the struct.
func optionFields(options any) map[string]reflect.Value {
	fields := make(map[string]reflect.Value)
	v := reflect.ValueOf(options).Elem()
	for _, f := range reflect.VisibleFields(v.Type()) {
		if name := f.Tag.Get("toml"); name != "" && name != "-" {
			fields[name] = v.FieldByIndex(f.Index)
		}
	}
	return fields
}

// optionTags returns a tag of the options of a struct that have it, by option. options is a
// pointer to the struct.
func optionTags(options any, tag string) map[string]string {
	tags := make(map[string]string)
	for _, f := range reflect.VisibleFields(reflect.TypeOf(options).Elem()) {
		if value, ok := f.Tag.Lookup(tag); ok {
			tags[f.Tag.Get("toml")] = value
		}
	}
	return tags
}

// tables returns the elements of a list of tables in either TOML notation.
func tables(v any) ([]map[string]any, bool) {
	switch v := v.(type) {
	case []map[string]any:
		return v, true
	case []any:
		list := make([]map[string]any, len(v))
		for i, e := range v {
			t, ok := e.(map[string]any)
			if !ok {
				return nil, false
			}
			list[i] = t
		}
		return list, true
	default:
		return nil, false
	}
}

// describe describes a value, for an error about its type.
func describe(v any, written redaction) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", written.show(v))
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	case []any, []map[string]any:
		return "a list"
	default:
		return strings.TrimSpace(fmt.Sprint(v))
	}
}
