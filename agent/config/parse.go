package config

import (
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// parse returns the values of a file and their lines. It reports false after an error.
func (r *report) parse(file int) (map[string]any, *node, bool) {
	t := table{file: file}
	text := strings.TrimPrefix(r.files[file].Text, "\ufeff") // some editors' byte order mark
	if strings.TrimSpace(text) == "" {
		r.errorf(t, nil, "the file is empty")
		return nil, nil, false
	}
	if line := tooDeep(text); line > 0 {
		r.errorf(t, &node{line: line}, "nested more than %d levels deep", maxDepth)
		return nil, nil, false
	}
	var values map[string]any
	if _, err := toml.Decode(text, &values); err != nil {
		line, message := syntaxError(text, err)
		r.errorf(t, &node{line: line}, "%s", message)
		return nil, nil, false
	}
	return values, locate(text), true
}

// unquotedValue finds values in the library's error messages: a value without quotes may
// be a secret.
var unquotedValue = regexp.MustCompile(`(?s)^([^"']*[Ii]nvalid (?:integer|float|float value:|float:|datetime:)|` +
	`cannot use sign with non-decimal numbers:|not an? (?:binary|octal|hexadecimal) number:) ["'](.*)["']`)

// syntaxError returns the line and the message for an error of the library.
func syntaxError(text string, err error) (line int, message string) {
	var parse toml.ParseError
	if !errors.As(err, &parse) {
		return 1, strings.TrimPrefix(err.Error(), "toml: ")
	}
	line, message = parse.Position.Line, parse.Message
	if strings.HasSuffix(message, `got '\n' instead`) { // the library mostly counts this newline already
		line = 1 + strings.Count(text[:min(parse.Position.Start, len(text))], "\n")
	}
	if rest, ok := strings.CutPrefix(message, "Key '"); ok {
		if key, ok := strings.CutSuffix(rest, "' has already been defined."); ok {
			return line, key + ": is defined twice"
		}
	}
	if strings.HasPrefix(message, "expected value but found") {
		message = "expected a value: a string in quotes, a number, true or false"
	} else if _, got, ok := strings.Cut(message, "expected a top-level item to end with a newline, comment, or EOF, but got "); ok {
		message = "unexpected " + strings.TrimSuffix(got, " instead") + "; put a string in quotes"
	} else if _, size, ok := strings.Cut(message, " is out of range for "); ok {
		message = "the number is out of range for " + size
	} else if m := unquotedValue.FindStringSubmatchIndex(message); m != nil {
		message = message[:m[3]] + message[m[5]+1:]
	}
	if parse.LastKey != "" {
		message = parse.LastKey + ": " + message
	}
	return line, message
}

// expandValue expands the variables in the strings of a value, an option of t.
func (d *decoder) expandValue(t table, path string, v any, at *node) any {
	switch v := v.(type) {
	case string:
		expanded, err := expand(v, func(name string) (string, bool) {
			value, set := d.getenv(name)
			t.written.add(value, "${"+name+"}")
			return value, set
		})
		switch {
		case err != nil:
			d.errorf(t, at, "%s: %v", path, err)
		case strings.ContainsRune(expanded, 0):
			d.errorf(t, at, "%s: contains a NUL character", path)
		case expanded != v:
			t.written.add(expanded, v)
		}
		return expanded
	case []any:
		for i := range v {
			v[i] = d.expandValue(t, path, v[i], at.item(i))
		}
	case []map[string]any:
		for i := range v {
			d.expandValue(t, path, v[i], at.item(i))
		}
	case map[string]any:
		for key := range v {
			v[key] = d.expandValue(t, path+"."+key, v[key], at.key(key))
		}
	}
	return v
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// maxExpanded bounds the length of a string after expansion.
const maxExpanded = 1 << 20

// expand replaces ${NAME} by the variable's value, and ${NAME:-text} by the text if the
// variable is not set or empty. $${ stands for a literal ${. The values of variables are
// not expanded again. On an error it returns s.
func expand(s string, getenv func(string) (string, bool)) (string, error) {
	var b strings.Builder
	for rest := s; ; {
		before, after, found := strings.Cut(rest, "${")
		if !found {
			b.WriteString(rest)
			return b.String(), nil
		}
		if escaped, ok := strings.CutSuffix(before, "$"); ok {
			b.WriteString(escaped + "${")
			rest = after
			continue
		}
		b.WriteString(before)
		inner, behind, closed := strings.Cut(after, "}")
		name, fallback, hasFallback := strings.Cut(inner, ":-")
		if !closed || !variableName.MatchString(name) {
			return s, errors.New(`"${" does not begin a variable such as ${NAME} or ${NAME:-default}; write "$${" for a literal "${"`)
		}
		if strings.Contains(fallback, "${") {
			return s, errors.New("the default of ${" + name + ":-...} contains another variable, which is not expanded: set " + name + " in the environment")
		}
		value, set := getenv(name)
		switch {
		case hasFallback && value == "":
			value = fallback
		case !set:
			return s, errors.New("the environment variable " + name + " is not set: set it, or write ${" + name + ":-default}")
		case !utf8.ValidString(value):
			return s, errors.New("the environment variable " + name + " is not valid UTF-8")
		case b.Len()+len(value) > maxExpanded:
			return s, errors.New("is longer than 1MiB after expansion of its variables")
		}
		b.WriteString(value)
		rest = behind
	}
}
