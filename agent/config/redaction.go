package config

import (
	"maps"
	"slices"
	"strings"
)

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
