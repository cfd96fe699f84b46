package config

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// parse returns the values of a file and their lines; false if it has none.
func (l *loader) parse(file int) (map[string]any, *node, bool) {
	t := table{file: file}
	text := strings.TrimPrefix(l.files[file].Text, "\ufeff") // some editors' byte order mark
	if strings.TrimSpace(text) == "" {
		l.errorf(t, nil, "the file is empty")
		return nil, nil, false
	}
	if line := tooDeep(text); line > 0 {
		l.errorf(t, &node{line: line}, "nested more than %d deep: not a configuration", maxDepth)
		return nil, nil, false
	}
	var values map[string]any
	if _, err := toml.Decode(text, &values); err != nil {
		line, message := syntaxError(text, err)
		l.errorf(t, &node{line: line}, "%s", message)
		return nil, nil, false
	}
	return values, locate(text), true
}

// unquotedValue finds the texts of values in the library's messages: a token
// whose quotes were forgotten may be a secret.
var unquotedValue = regexp.MustCompile(`(?s)^([^"']*[Ii]nvalid (?:integer|float|float value:|float:|datetime:)|` +
	`cannot use sign with non-decimal numbers:|not an? (?:binary|octal|hexadecimal) number:) ["'](.*)["']`)

// syntaxError returns the line and the message of an error of the library.
func syntaxError(text string, err error) (line int, message string) {
	var parse toml.ParseError
	if !errors.As(err, &parse) {
		return 1, strings.TrimPrefix(err.Error(), "toml: ")
	}
	line, message = parse.Position.Line, parse.Message
	if strings.HasSuffix(message, `got '\n' instead`) { // counted in by the library, mostly
		line = 1 + strings.Count(text[:min(parse.Position.Start, len(text))], "\n")
	}
	if strings.HasPrefix(message, "expected value but found") {
		message = "expected a value; put a string in quotes"
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
func (l *loader) expandValue(t table, path string, v any, at *node) any {
	switch v := v.(type) {
	case string:
		expanded, err := expand(v, func(name string) (string, bool) {
			value, set := l.host.Getenv(name)
			t.written.add(value, "${"+name+"}")
			return value, set
		})
		switch {
		case err != nil:
			l.errorf(t, at, "%s: %v", path, err)
		case strings.ContainsRune(expanded, 0):
			l.errorf(t, at, "%s: holds a NUL character", path)
		case expanded != v:
			t.written.add(expanded, v)
		}
		return expanded
	case []any:
		for i := range v {
			v[i] = l.expandValue(t, path, v[i], at.item(i))
		}
	case []map[string]any:
		for i := range v {
			l.expandValue(t, path, v[i], at.item(i))
		}
	case map[string]any:
		for key := range v {
			v[key] = l.expandValue(t, path+"."+key, v[key], at.key(key))
		}
	}
	return v
}

// holdsSecret reports whether the file itself holds the value of a secret option: it
// does not come from a variable, or the variable has a default.
func holdsSecret(v any) bool {
	switch v := v.(type) {
	case string:
		const mark = "\x00"
		marked, err := expand(v, func(string) (string, bool) { return mark, true })
		if err != nil {
			return false
		}
		withDefaults, _ := expand(v, func(string) (string, bool) { return "", true })
		withoutDefaults := strings.ReplaceAll(marked, mark, "")
		return withDefaults != withoutDefaults || withDefaults != "" && marked == withDefaults
	case []any:
		return slices.ContainsFunc(v, holdsSecret)
	case map[string]any:
		return slices.ContainsFunc(slices.Collect(maps.Values(v)), holdsSecret)
	default:
		return false
	}
}

// A redaction maps values that may be secrets to what errors show in their place: for
// a value from the environment, what the file says.
type redaction map[string]string

func (r redaction) add(value, shown string) {
	if value != "" && value != shown {
		r[value] = shown
	}
}

// hide adds the strings of a value that is a secret.
func (r redaction) hide(v any) {
	switch v := v.(type) {
	case string:
		r.add(v, "[secret]")
	case []any:
		for _, e := range v {
			r.hide(e)
		}
	case map[string]any:
		for _, e := range v {
			r.hide(e)
		}
	}
}

// show returns an operand of an error as it may be shown. A part of a secret is shown
// as little as the whole; what is shorter than minSecret is not one.
func (r redaction) show(operand string) string {
	if shown, ok := r[operand]; ok {
		return shown
	}
	longest := ""
	for value := range r {
		if len(value) >= minSecret && strings.Contains(operand, value) &&
			(len(value) > len(longest) || len(value) == len(longest) && value < longest) {
			longest = value
		}
	}
	if longest != "" {
		return r[longest]
	}
	return operand
}

// minSecret is the shortest value that is hidden also where it is part of another.
const minSecret = 4

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// maxExpanded bounds what a string with variables may become.
const maxExpanded = 1 << 20

// expand replaces ${NAME} by the variable's value and ${NAME:-text} by the text
// if it is not set or empty; $${ stands for ${ itself. What comes from a
// variable is not expanded again. On an error it returns s.
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
			return s, errors.New(`"${" begins no variable such as ${NAME} or ${NAME:-default}; a literal "${" is written "$${"`)
		}
		if strings.Contains(fallback, "${") {
			return s, errors.New("the default of ${" + name + ":-...} holds another variable, and is not expanded: set " + name + " in the environment")
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
			return s, errors.New("with its variables it is longer than 1MiB")
		}
		b.WriteString(value)
		rest = behind
	}
}
