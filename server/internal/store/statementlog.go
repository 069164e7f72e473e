package store

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// slowStatement is from when a statement is worth a warning.
const slowStatement = 500 * time.Millisecond

// statementLog writes one debug line for each statement, and a warning for slow and failed ones. Values are left out:
// they may be secrets.
type statementLog struct{ log *slog.Logger }

var _ gorm.ParamsFilter = statementLog{}

func (l statementLog) LogMode(logger.LogLevel) logger.Interface { return l }

func (l statementLog) Info(ctx context.Context, text string, _ ...any) { l.log.DebugContext(ctx, text) }

func (l statementLog) Warn(ctx context.Context, text string, _ ...any) { l.log.WarnContext(ctx, text) }

func (l statementLog) Error(ctx context.Context, text string, _ ...any) {
	l.log.ErrorContext(ctx, text)
}

// ParamsFilter makes gorm print the statement with its placeholders.
func (l statementLog) ParamsFilter(_ context.Context, statement string, _ ...any) (string, []any) {
	return statement, nil
}

func (l statementLog) Trace(ctx context.Context, begin time.Time, fc func() (string, int64), err error) {
	took := time.Since(begin)
	level := slog.LevelDebug
	if took > slowStatement || err != nil && !expected(err) {
		level = slog.LevelWarn
	}
	if !l.log.Enabled(ctx, level) {
		return
	}
	statement, rows := fc()
	attrs := []slog.Attr{slog.String("sql", statement), slog.Int64("rows", rows), slog.Duration("took", took)}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	l.log.LogAttrs(ctx, level, "database statement", attrs...)
}

// expected reports whether an error is an answer to the caller rather than trouble.
func expected(err error) bool {
	var conflict *ErrConflict
	return errors.Is(err, ErrNotFound) || errors.As(err, &conflict) || errors.Is(err, ErrBusy) ||
		errors.Is(err, context.Canceled)
}
