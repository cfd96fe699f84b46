package config

import (
	"maps"
	"slices"
	"strings"
)

// holdsSecret reports whether the file itself contains the value of a secret option: the
// value does not come from a variable, or the variable has a default.
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

// A redaction maps values that may be secrets to what errors show instead. For a value
// from the environment, that is the text of the file.
type redaction map[string]string

func (r redaction) add(value, shown string) {
	if value != "" && value != shown {
		r[value] = shown
	}
}

// hide adds all strings of a secret value.
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

// show returns the form of an operand that an error may show. An operand that contains a
// secret of at least minSecret bytes is replaced as a whole.
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

// minSecret is the length from which a secret is also hidden inside other text.
const minSecret = 4
