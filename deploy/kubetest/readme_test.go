package kubetest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A documentedValue is a value of values.yaml, with the comment above it. A map without a comment is
// only the way to others.
type documentedValue struct {
	name    string // with dots
	value   any
	comment string
}

// documentedList returns the values of values.yaml in their order.
func documentedList(t *testing.T) (list []documentedValue) {
	t.Helper()
	var file yaml.Node
	if err := yaml.Unmarshal([]byte(readFile(t, chartDir+"/values.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	var walk func(prefix string, node *yaml.Node)
	walk = func(prefix string, node *yaml.Node) {
		for i := 0; i < len(node.Content); i += 2 {
			key, value := node.Content[i], node.Content[i+1]
			name := prefix + key.Value
			comment := strings.Join(strings.Fields(strings.ReplaceAll(key.HeadComment, "#", "")), " ")
			if comment == "" && value.Kind == yaml.MappingNode {
				walk(name+".", value)
				continue
			}
			if comment == "" {
				t.Errorf("values.yaml does not explain %s", name)
			}
			v := documentedValue{name: name, comment: comment}
			if err := value.Decode(&v.value); err != nil {
				t.Fatal(err)
			}
			list = append(list, v)
		}
	}
	walk("", file.Content[0])
	return list
}

func TestReadmeExplainsEveryValue(t *testing.T) {
	var table strings.Builder
	table.WriteString("| value | default | meaning |\n|---|---|---|\n")
	for _, v := range documentedList(t) {
		text, err := json.Marshal(v.value)
		if err != nil {
			t.Fatal(err)
		}
		value := "`" + string(text) + "`"
		if len(text) > 60 {
			value = "see values.yaml"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", v.name, value, v.comment)
	}
	path := chartDir + "/README.md"
	generated(t, path, between(t, readFile(t, path), "<!-- values -->", "<!-- /values -->", table.String()))
}
