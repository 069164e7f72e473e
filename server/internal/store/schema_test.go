package store

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gorm.io/gorm"
	"gorm.io/gorm/schema"

	"activerelay/migrations"
	"activerelay/server/internal/store/storetest/pgtest"
)

// server is the PostgreSQL server of this package's tests.
var server pgtest.Server

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &server)) }

// rowTypes are all types that gorm reads or writes, one of each table.
func rowTypes() []any {
	return []any{
		&Partner{}, &Domain{}, &RelayIP{}, &Route{}, &User{}, &Settings{}, &DestinationLimit{}, &QuotaDay{}, &QuotaLease{}, &usageRefusal{},
		&senderUsage{}, &senderRefusal{}, &Decision{}, &Complaint{}, &Edge{}, &JoinToken{}, &Instruction{}, &Notice{}, &Token{},
		&IdempotencyKey{}, &AuditRow{}, &Document{}, &pendingDocument{}, &QueuedMessage{}, &QueueOperation{}, &queueOperationEdge{},
		&Rejection{},
	}
}

// rawTables are read and written by SQL alone.
func rawTables() []string { return []string{"meta", "revision", "goose_db_version", "sqlite_sequence"} }

func migrated(t *testing.T, url string) *Store {
	t.Helper()
	s, err := Open(context.Background(), Config{URL: url, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	migrator, err := s.Migrator()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := migrator.Up(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

func onBoth(t *testing.T, test func(t *testing.T, s *Store)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, migrated(t, "sqlite:"+filepath.Join(t.TempDir(), "relay.db"))) })
	t.Run("postgres", func(t *testing.T) { test(t, migrated(t, server.Database(t))) })
}

// columns returns the columns of each table of the database.
func columns(t *testing.T, s *Store) map[string][]string {
	t.Helper()
	query := `SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'`
	if s.dialect == migrations.SQLite {
		query = `SELECT m.name, c.name FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c WHERE m.type = 'table'`
	}
	rows, err := s.read.Raw(query).Rows()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	found := map[string][]string{}
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			t.Fatal(err)
		}
		found[table] = append(found[table], column)
	}
	for _, names := range found {
		slices.Sort(names)
	}
	return found
}

func parse(t *testing.T, db *gorm.DB, row any) *schema.Schema {
	t.Helper()
	statement := &gorm.Statement{DB: db}
	if err := statement.Parse(row); err != nil {
		t.Fatal(err)
	}
	return statement.Schema
}

func TestRowTypesHaveTheColumnsOfTheSchema(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		tables := columns(t, s)
		for _, row := range rowTypes() {
			parsed := parse(t, s.read, row)
			names := slices.Sorted(slices.Values(parsed.DBNames))
			if diff := cmp.Diff(tables[parsed.Table], names); diff != "" {
				t.Errorf("%T and table %s differ (-table +type):\n%s", row, parsed.Table, diff)
			}
			delete(tables, parsed.Table)
		}
		for table := range tables {
			if !slices.Contains(rawTables(), table) {
				t.Errorf("no row type is of table %s", table)
			}
		}
	})
}

func TestRowTypesComeBackFromTheSchemaAsTheyWereSaved(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		for _, row := range rowTypes() {
			t.Run(parse(t, s.read, row).Table, func(t *testing.T) { saveAndLoad(t, s, row) })
		}
	})
}

// saveAndLoad fills every field of a row, saves it and compares what is loaded. It is undone, so that references do not
// matter beyond what parents it adds.
func saveAndLoad(t *testing.T, s *Store, row any) {
	ctx := context.Background()
	fill(reflect.ValueOf(row).Elem(), parse(t, s.read, row).Table)
	undone := fmt.Errorf("undone")
	err := s.write.WithContext(ctx).Transaction(func(db *gorm.DB) error {
		if err := addParents(db, row); err != nil {
			return err
		}
		if _, one := row.(*Settings); one {
			if err := db.Where("id = 1").Delete(&Settings{}).Error; err != nil {
				return err
			}
		}
		if err := db.Create(row).Error; err != nil {
			return err
		}
		loaded := reflect.New(reflect.TypeOf(row).Elem()).Interface()
		query := db
		for _, key := range parse(t, db, row).PrimaryFields {
			value, _ := key.ValueOf(ctx, reflect.ValueOf(row).Elem())
			query = query.Where(key.DBName+" = ?", value)
		}
		if err := query.Take(loaded).Error; err != nil {
			return err
		}
		if diff := cmp.Diff(row, loaded, cmp.AllowUnexported(usageRefusal{}, senderUsage{}, senderRefusal{}, pendingDocument{}, queueOperationEdge{})); diff != "" {
			t.Errorf("(-saved +loaded):\n%s", diff)
		}
		return undone
	})
	if err != undone {
		t.Error(err)
	}
}

// addParents adds what a row refers to.
func addParents(db *gorm.DB, row any) error {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	partner := Partner{Slug: "acme", Administrative: Active(now), Relaying: Enabled(), CreatedAt: now}
	domain := Domain{Name: "acme.example", Partner: "acme", UsersMaySendAs: "own", Administrative: Active(now), Relaying: Enabled(), CreatedAt: now}
	switch row := row.(type) {
	case *Rejection:
		return db.Create(&Document{Key: row.Document, UpdatedAt: now}).Error
	case *Domain:
		return db.Create(&partner).Error
	case *RelayIP, *User:
		if err := db.Create(&partner).Error; err != nil {
			return err
		}
		return db.Create(&domain).Error
	}
	return nil
}

// fill gives every field of a row a value that is not zero and that the checks of the schema allow.
func fill(row reflect.Value, table string) {
	for i := range row.NumField() {
		field, name := row.Field(i), row.Type().Field(i).Name
		if row.Type().Field(i).Anonymous || name == "Relaying" {
			fill(field, table)
			continue
		}
		if field.Kind() == reflect.Pointer {
			field.Set(reflect.New(field.Type().Elem()))
			field = field.Elem()
		}
		switch value := field.Addr().Interface().(type) {
		case *time.Time:
			*value = time.Date(2026, 11, 22, 12, 13, 14, 15000, time.UTC)
		case *string:
			*value = text(table, name)
		case *Strings:
			*value = Strings{"a", "ü,\"'"}
		case *[]byte:
			*value = []byte{0, 1, 255}
		case *bool:
			*value = true
		case *int:
			*value = 1
		case *int64:
			*value = 1 << 40
		default:
			panic("no value for a " + field.Type().String())
		}
	}
}

func text(table, field string) string {
	special := map[string]string{
		"Status": "active", "State": "enabled", "UsersMaySendAs": "own", "BulkMode": "observe", "TLS": "required", "Role": "operator",
		"Partner": "acme", "Domain": "acme.example", "relay_ips.State": "active", "sender_usage.Kind": "user", "sender_refusals.Kind": "user",
		"queued_messages.State": "held", "queue_operations.Action": "retry",
	}
	if value, ok := special[table+"."+field]; ok {
		return value
	}
	if value, ok := special[field]; ok {
		return value
	}
	return strings.ToLower(field) + ` ü'"\`
}
