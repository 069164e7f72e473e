package httpapi

import (
	"context"
	"fmt"
	"slices"

	"activerelay/api"
	"activerelay/api/mailaddr"
	"activerelay/api/problem"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// ListUsers lists the SMTP users that the token may see, by address.
func (a *API) ListUsers(ctx context.Context, r rest.ListUsersRequestObject) (rest.ListUsersResponseObject, error) {
	p := r.Params
	cursor, err := a.page(ctx, p.PageSize, p.PageToken, p.Partner, p.Domain)
	if err != nil {
		return nil, err
	}
	filter := store.UserFilter{Partner: text(p.Partner)}
	if filter.Domain, err = domainFilter(p.Domain); err != nil {
		return nil, err
	}
	var rows []store.User
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		rows, err = tx.Users(filter, cursor.after, cursor.limit())
		return err
	})
	if err != nil {
		return nil, err
	}
	rows, next := cut(cursor, rows, func(row store.User) string { return row.Address })
	return rest.ListUsers200JSONResponse{Items: convert(rows, userToAPI), NextPageToken: next}, nil
}

// GetUser shows one user, never its password.
func (a *API) GetUser(ctx context.Context, r rest.GetUserRequestObject) (rest.GetUserResponseObject, error) {
	address, err := userAddress("path/address", r.Address)
	if err != nil {
		return nil, err
	}
	var row store.User
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		row, err = tx.User(address.Key())
		return err
	})
	if err != nil {
		return nil, notFound(err, "user")
	}
	return rest.GetUser200JSONResponse{UserResponseJSONResponse: userResponse(row)}, nil
}

// userAddress reads the address of a user or an alias; its Key is what is kept.
func userAddress(pointer, address string) (mailaddr.Address, error) {
	parsed, err := mailaddr.Parse(address, mailaddr.Options{})
	if err != nil {
		return parsed, invalid(pointer, "email", "is not an e-mail address: "+err.Error())
	}
	return parsed, nil
}

// CreateUser creates an SMTP user. Its password is shown in this reply where it was made here, and never again.
func (a *API) CreateUser(ctx context.Context, r rest.CreateUserRequestObject) (rest.CreateUserResponseObject, error) {
	address, err := userAddress("/address", r.Body.Address)
	if err != nil {
		return nil, err
	}
	aliases, err := userAliases(address, r.Body.Aliases)
	if err != nil {
		return nil, err
	}
	set, err := a.chosenPassword(ctx, r.Body.Password)
	if err != nil {
		return nil, err
	}
	return idempotent(ctx, a, attempt[rest.CreateUserResponseObject]{
		key: r.Params.IdempotencyKey, request: r, secret: true,
		visit: rest.CreateUserResponseObject.VisitCreateUserResponse,
	}, func(tx *store.Tx) (rest.CreateUserResponseObject, error) {
		domain, err := tx.Domain(address.Domain)
		if err != nil {
			return nil, notFound(err, "domain")
		}
		row := store.User{
			Address: address.Key(), Domain: domain.Name, Partner: domain.Partner, Verifier: set.verifier, Aliases: aliases,
			Description: text(r.Body.Description), PasswordChangedAt: tx.Now,
			Administrative: store.Active(tx.Now), Relaying: store.Enabled(),
		}
		if err := a.saveUser(ctx, tx, &row, nil, change{secrets: []string{"password"}}); err != nil {
			return nil, err
		}
		return rest.CreateUser201JSONResponse{UserWithPasswordResponseJSONResponse: userWithPassword(row, set)}, nil
	})
}

// userAliases returns the canonical aliases of a user, each once. They must be of the user's own domain.
func userAliases(address mailaddr.Address, given []api.EmailAddress) (store.Strings, error) {
	aliases := store.Strings{}
	for i, one := range given {
		pointer := fmt.Sprintf("/aliases/%d", i)
		alias, err := userAddress(pointer, one)
		if err != nil {
			return nil, err
		}
		if alias.Domain != address.Domain {
			return nil, invalid(pointer, "domain", "must be an address of the user's domain")
		}
		if key := alias.Key(); key != address.Key() && !slices.Contains(aliases, key) {
			aliases = append(aliases, key)
		}
	}
	return aliases, nil
}

// password is a password on its way into a user.
type password struct {
	verifier string
	// made is the password itself where it was made here; nil where the caller knows it.
	made *string
}

// chosenPassword hashes the given password, or a new one. It runs before the transaction.
func (a *API) chosenPassword(ctx context.Context, given *string) (password, error) {
	var set password
	if given == nil {
		made := newPassword()
		set.made, given = &made, &made
	}
	var err error
	set.verifier, err = a.hashing.hash(ctx, *given)
	return set, err
}

// saveUser inserts or updates a user, audits it and publishes its domain. before is nil for a new one; of the change
// only the reason and the secrets are the caller's.
func (a *API) saveUser(ctx context.Context, tx *store.Tx, row *store.User, before any, c change) error {
	save := tx.UpdateUser
	if before == nil {
		save = tx.InsertUser
	}
	if err := save(row); store.IsConflict(err, "users_pkey") {
		return problem.Conflict("There is a user with this address already")
	} else if err != nil {
		return err
	}
	tx.Publish(store.DomainKey(row.Domain))
	c.object, c.partner, c.before, c.after = "user/"+row.Address, row.Partner, before, userToAPI(*row)
	return a.audit(ctx, tx, c)
}

// UpdateUser changes the properties that the merge patch names.
func (a *API) UpdateUser(ctx context.Context, r rest.UpdateUserRequestObject) (rest.UpdateUserResponseObject, error) {
	address, err := userAddress("path/address", r.Address)
	if err != nil {
		return nil, err
	}
	aliases, err := userAliases(address, r.Body.Aliases)
	if err != nil {
		return nil, err
	}
	var row store.User
	err = a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		if row, err = tx.LockUser(address.Key()); err != nil {
			return notFound(err, "user")
		}
		if err := ifMatch(r.Params.IfMatch, row.Version); err != nil {
			return err
		}
		before := userToAPI(row)
		if r.Body.Aliases != nil {
			row.Aliases = aliases
		}
		if description, named := nullableText(r.Body.Description); named {
			row.Description = description
		}
		return a.saveUser(ctx, tx, &row, before, change{})
	})
	if err != nil {
		return nil, err
	}
	return rest.UpdateUser200JSONResponse{UserResponseJSONResponse: userResponse(row)}, nil
}

// DeleteUser deletes a user. One that was disabled for abuse stays until the operator deletes it: else it would be
// created anew as if nothing had happened.
func (a *API) DeleteUser(ctx context.Context, r rest.DeleteUserRequestObject) (rest.DeleteUserResponseObject, error) {
	address, err := userAddress("path/address", r.Address)
	if err != nil {
		return nil, err
	}
	err = a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		row, err := tx.LockUser(address.Key())
		if err != nil {
			return notFound(err, "user")
		}
		if err := ifMatch(r.Params.IfMatch, row.Version); err != nil {
			return err
		}
		if row.Relaying.State == store.RelayingDisabled && PrincipalFrom(ctx).Role != api.RoleOperator {
			return problem.Conflict("Relaying of the user is disabled because of abuse, so only the operator may delete it")
		}
		if err := tx.DeleteUser(row.Address); err != nil {
			return err
		}
		tx.Publish(store.DomainKey(row.Domain))
		return a.audit(ctx, tx, change{object: "user/" + row.Address, partner: row.Partner, before: userToAPI(row)})
	})
	if err != nil {
		return nil, err
	}
	return rest.DeleteUser204Response{}, nil
}

// RotateUserPassword sets a new password.
func (a *API) RotateUserPassword(ctx context.Context, r rest.RotateUserPasswordRequestObject) (rest.RotateUserPasswordResponseObject, error) {
	address, err := userAddress("path/address", r.Address)
	if err != nil {
		return nil, err
	}
	set, err := a.chosenPassword(ctx, r.Body.Password)
	if err != nil {
		return nil, err
	}
	return idempotent(ctx, a, attempt[rest.RotateUserPasswordResponseObject]{
		key: r.Params.IdempotencyKey, request: r, secret: true,
		visit: rest.RotateUserPasswordResponseObject.VisitRotateUserPasswordResponse,
	}, func(tx *store.Tx) (rest.RotateUserPasswordResponseObject, error) {
		row, err := tx.LockUser(address.Key())
		if err != nil {
			return nil, notFound(err, "user")
		}
		before := userToAPI(row)
		row.Verifier, row.PasswordChangedAt = set.verifier, tx.Now
		if err := a.saveUser(ctx, tx, &row, before, change{secrets: []string{"password"}}); err != nil {
			return nil, err
		}
		return rest.RotateUserPassword200JSONResponse{UserWithPasswordResponseJSONResponse: userWithPassword(row, set)}, nil
	})
}

func userResponse(row store.User) rest.UserResponseJSONResponse {
	return rest.UserResponseJSONResponse{
		Body: userToAPI(row), Headers: rest.UserResponseResponseHeaders{ETag: etag(row.Version)},
	}
}

func userToAPI(row store.User) api.User {
	return api.User{
		Address: row.Address, Domain: row.Domain, Partner: row.Partner, Status: api.AdministrativeStatus(row.Status),
		StatusReason: optional(row.StatusReason), Relaying: relayingToAPI(row.Relaying), Aliases: row.Aliases,
		Description: optional(row.Description), PasswordChangedAt: &row.PasswordChangedAt,
		CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
	}
}

func userWithPassword(row store.User, set password) rest.UserWithPasswordResponseJSONResponse {
	u := userToAPI(row)
	return rest.UserWithPasswordResponseJSONResponse{
		Body: api.UserWithPassword{
			Address: u.Address, Domain: u.Domain, Partner: u.Partner, Status: u.Status, StatusReason: u.StatusReason,
			Relaying: u.Relaying, Aliases: u.Aliases, Description: u.Description, PasswordChangedAt: u.PasswordChangedAt,
			CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, Password: set.made,
		},
		Headers: rest.UserWithPasswordResponseResponseHeaders{ETag: etag(row.Version)},
	}
}
