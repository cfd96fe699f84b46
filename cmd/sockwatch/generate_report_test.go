package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"sockwatch/inputs/tcplisten"
)

// renderReportSchema returns docs/report.schema.json: the fields of a report with their
// comments.
func renderReportSchema(t *testing.T) string {
	t.Helper()
	w := reportSchema{t: t, comments: fieldComments(t, "inputs", "internal", "expect")}
	schema := w.schema(reflect.TypeFor[tcplisten.Report]())
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["title"] = "A report of sockwatch"
	schema["description"] = "What \"sockwatch check --live --json\" prints: one object for each input with rules."
	return indentedJSON(t, schema)
}

// reportValues are all values of fields that have few, by type and name. An empty string
// is one of them.
var reportValues = map[string][]string{
	"RuleOutcome.kind":        {"allow", "expect", "forbid"},
	"RuleOutcome.outcome":     {"", "holds", "missing", "undecided", "violated"},
	"Report.listener_source":  {"netlink", "procfs"},
	"Report.owner_source":     {"bpf", "procfs"},
	"ListenerOutcome.verdict": {"", "forbidden", "no", "undecided", "yes"},
	"Expiry.kind":             {"allow", "expect", "forbid"},
}

// A reportSchema turns Go types into schemas.
type reportSchema struct {
	t        *testing.T
	comments map[string]string // by type and field, "Report.OK"
}

func (w *reportSchema) schema(of reflect.Type) object {
	switch {
	case of == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case of.Kind() == reflect.String:
		return object{"type": "string"}
	case of.Kind() == reflect.Bool:
		return object{"type": "boolean"}
	case of.Kind() == reflect.Int:
		return object{"type": "integer", "minimum": 0}
	case of.Kind() == reflect.Slice:
		return object{"type": "array", "items": w.schema(of.Elem())}
	case of.Kind() == reflect.Map:
		return object{"type": "object", "additionalProperties": w.schema(of.Elem())}
	case of.Kind() != reflect.Struct:
		w.t.Fatalf("%v has no schema", of)
	}
	properties, required := object{}, []string{}
	for _, f := range reflect.VisibleFields(of) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		s := w.schema(f.Type)
		if values := reportValues[of.Name()+"."+name]; values != nil {
			s["enum"] = values
		}
		if name == "digest" {
			s["pattern"] = "^[0-9a-f]{12}$"
		}
		if comment := w.comments[of.Name()+"."+f.Name]; comment != "" {
			s["description"] = comment
		}
		properties[name] = s
		if options != "omitempty" {
			required = append(required, name)
		}
	}
	return object{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}

// fieldComments returns the comments behind the fields of the structs of a package.
func fieldComments(t *testing.T, path ...string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, filepath.Join(path...), "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	comments := make(map[string]string)
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, f := range s.Fields.List {
					for _, name := range f.Names {
						comments[spec.Name.Name+"."+name.Name] = strings.TrimSpace(f.Comment.Text())
					}
				}
			}
			return true
		})
	}
	return comments
}
