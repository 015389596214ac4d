package main

import (
	"context"
	"regexp"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mendian/mendian/internal/pgtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gateway": main})
}

// Each script drives the commands as a person does, on a database of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("DATABASE_URL", pgtest.DSN(t))
			env.Setenv("GATEWAY_KEYSET_FILE", env.WorkDir+"/keyset.json")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"capture": capture,
			"sql":     sql,
		},
	})
}

// capture NAME PATTERN keeps what the pattern's group matches in the last
// standard output in the variable NAME.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture NAME PATTERN")
	}
	m := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) != 2 {
		ts.Fatalf("%s is not in the output", args[1])
	}
	ts.Setenv(args[0], m[1])
}

// sql STATEMENT runs as the database's owner; the first column of the rows
// goes to standard output.
func sql(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sql STATEMENT")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, ts.Getenv("DATABASE_URL"))
	ts.Check(err)
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, args[0], pgx.QueryExecModeSimpleProtocol)
	ts.Check(err)
	values, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) {
		all, err := r.Values()
		if err != nil || len(all) == 0 {
			return "", err
		}
		s, _ := all[0].(string)
		return s, nil
	})
	ts.Check(err)
	for _, v := range values {
		_, err := ts.Stdout().Write([]byte(v + "\n"))
		ts.Check(err)
	}
}
