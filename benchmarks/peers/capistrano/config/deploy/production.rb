ENV.fetch("HOSTS").split.each { |host| server host, roles: %w[app] }
set :ssh_options, config: ENV.fetch("SSH_CONFIG")
