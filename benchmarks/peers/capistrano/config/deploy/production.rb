# HOSTS is a name of Capistrano's own: a filter.
ENV.fetch("TARGETS").split.each { |host| server host, roles: %w[app] }
set :ssh_options, config: ENV.fetch("SSH_CONFIG")
