package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"activerelay/migrations"
	"activerelay/server/internal/store"
)

// migrateUp is the command of that name.
func migrateUp(ctx context.Context, config Config, out io.Writer) error {
	if err := createDataDir(config); err != nil {
		return err
	}
	return withMigrator(ctx, config, func(migrator *migrations.Migrator) error {
		steps, err := migrator.Up(ctx)
		if err != nil {
			return err
		}
		for _, step := range steps {
			fmt.Fprintf(out, "applied %s\n", step.Name)
		}
		if len(steps) == 0 {
			fmt.Fprintln(out, "the database has the schema of this program already")
		}
		return nil
	})
}

// migrateStatus is the command of that name. It changes nothing, so it does not make a database that is not there.
func migrateStatus(ctx context.Context, config Config, out io.Writer) error {
	if path, ok := strings.CutPrefix(config.Database, "sqlite:"); ok {
		path = cmp.Or(path, filepath.Join(config.DataDir, "relay.db"))
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no database at %s; are data-dir and database right?", path)
		}
	}
	return withMigrator(ctx, config, func(migrator *migrations.Migrator) error {
		database, program, err := migrator.Versions(ctx)
		if err != nil {
			return err
		}
		steps, err := migrator.Status(ctx)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "VERSION\tMIGRATION\tAPPLIED")
		for _, step := range steps {
			applied := "pending"
			if !step.AppliedAt.IsZero() {
				applied = step.AppliedAt.UTC().Format(time.RFC3339)
			}
			fmt.Fprintf(table, "%d\t%s\t%s\n", step.Version, step.Name, applied)
		}
		if err := table.Flush(); err != nil {
			return err
		}
		if database > program {
			return fmt.Errorf("%w: version %d, known up to %d", migrations.ErrNewer, database, program)
		}
		return nil
	})
}

func withMigrator(ctx context.Context, config Config, do func(*migrations.Migrator) error) (err error) {
	opened, err := openStore(ctx, config, store.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	migrator, err := opened.Migrator()
	if err != nil {
		return err
	}
	return do(migrator)
}

// migrate brings the database to the schema of this program, or refuses one that it must not touch.
func migrate(ctx context.Context, config Config, opened *store.Store) error {
	migrator, err := opened.Migrator()
	if err != nil {
		return err
	}
	if !config.MigrateAtStart {
		database, program, err := migrator.Versions(ctx)
		switch {
		case err != nil:
			return err
		case database > program:
			return fmt.Errorf("%w: version %d, known up to %d", migrations.ErrNewer, database, program)
		case database < program:
			return fmt.Errorf("the database has schema version %d and this program needs %d; run relay-server migrate up", database, program)
		}
		return nil
	}
	steps, err := migrator.Up(ctx)
	for _, step := range steps {
		config.Log.InfoContext(ctx, "migrated", slog.String("migration", step.Name))
	}
	return err
}
